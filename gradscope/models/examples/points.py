"""Points in the plane on two moons that reach into each other. The classes are the moons.

The mean of all points lies between the moons, off the data. So does x0-hat of a noisy point, and a classifier of clean
points says little there: it is the example of guidance that x0-hat misleads.
"""

import math

import torch
from torch import Tensor, nn

from gradscope.models.mixture import Mixture, models_of

CENTRE, STD, COMPONENTS = (-0.5, -0.25), 0.08, 48
"""Centre of the first moon, a half circle of radius 1 that opens downwards; the second is the first one times -1."""


def data() -> Mixture:
    """The points: components along each moon."""
    angle = torch.linspace(0, math.pi, COMPONENTS)
    first = torch.stack([angle.cos(), angle.sin()], dim=1) + torch.tensor(CENTRE)
    return Mixture(torch.stack([first, -first]), STD)


denoiser, exact, clean = models_of(data)


class NearestMoon(nn.Module):
    """Which moon is nearer, as logits ``(n, 2)``; a judge that knows nothing of the mixture."""

    def forward(self, x: Tensor) -> Tensor:
        return -10 * torch.stack([_distance(x), _distance(-x)], dim=1)


def judge() -> NearestMoon:
    """The judge of clean points."""
    return NearestMoon()


def _distance(x: Tensor) -> Tensor:
    """Distance of points ``(n, 2)`` to the first moon, ``(n,)``."""
    from_centre = x - torch.tensor(CENTRE).to(x)
    ends = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]).to(x)
    to_ends = torch.linalg.vector_norm(from_centre[:, None] - ends, dim=2).amin(dim=1)
    to_arc = (torch.linalg.vector_norm(from_centre, dim=1) - 1).abs()
    return torch.where(from_centre[:, 1] >= 0, to_arc, to_ends)
