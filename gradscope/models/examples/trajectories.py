"""Paths of a point that passes an obstacle on the left or on the right. The classes are the sides.

A sample has the shape (horizon, action): 32 positions in the plane from (-1, 0) to (1, 0). Paths deviate smoothly from
their component, so clean paths hardly ever jerk, and the exact classifier of clean paths looks at just that: its
gradient is the difference of the sides divided by the covariance. In noisy paths the jerks are noise.
"""

import math

import torch
from torch import Tensor, nn

from gradscope.models.mixture import Mixture, models_of

HORIZON, CLEARANCES, TURNS = 32, (0.35, 0.45, 0.55), (-0.2, 0.0, 0.2)
"""Number of positions; largest distances from the straight line through the obstacle, and where they are reached."""
_LENGTH, _STD, _JERK = 8.0, 0.05, 0.005
"""Deviations: correlation length in positions, standard deviation, and that of what is not smooth."""


def data() -> Mixture:
    """The paths: each side has one component for each clearance and turn."""
    x = torch.linspace(-1, 1, HORIZON)
    # A parabola bends the line, so that the largest distance is at the turn.
    bumps = [torch.cos(math.pi / 2 * (x - turn * (1 - x**2))) ** 2 for turn in TURNS]
    left = torch.stack([torch.stack([x, far * bump], dim=1) for far in CLEARANCES for bump in bumps])
    right = left * torch.tensor([1.0, -1.0])
    place = torch.arange(HORIZON, dtype=torch.float64)
    smooth = _STD**2 * torch.exp(-((place[:, None] - place) ** 2) / (2 * _LENGTH**2))
    covariance = smooth + _JERK**2 * torch.eye(HORIZON, dtype=torch.float64)
    return Mixture(torch.stack([left, right]), torch.kron(covariance, torch.eye(2, dtype=torch.float64)))


denoiser, exact, clean = models_of(data)


class Side(nn.Module):
    """The side of some positions, on average, as logits ``(n, 2)`` of left and right."""

    def __init__(self, positions: slice) -> None:
        super().__init__()
        self.positions = positions

    def forward(self, x: Tensor) -> Tensor:
        left = 10 * x[:, self.positions, 1].mean(dim=1)
        return torch.stack([left, -left], dim=1)


def waypoint() -> Side:
    """A guide that sees one position only, beside the obstacle."""
    return Side(slice(HORIZON // 2, HORIZON // 2 + 1))


def judge() -> Side:
    """The judge of clean paths, by all positions."""
    return Side(slice(None))


def clearance(x: Tensor, t: Tensor, x_0: Tensor, target: Tensor) -> Tensor:
    """An energy, ``(n,)``: the predicted path passes the obstacle at a lateral distance of ``target``, ``(n,)``."""
    return -(x_0[:, HORIZON // 2, 1] - target).square()
