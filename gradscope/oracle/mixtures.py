"""The mixtures of the oracle, by name: ``points-separated-4`` is points in the plane of four well separated classes.

- ``points`` lie in the plane, ``vectors`` have 64 elements, ``images`` 3 x 32 x 32. Images differ in smooth patterns in
  a disc; around it all have the same background, which says nothing about the class.
- ``separated``: means of different classes are at least 8 standard deviations apart. ``overlapping``: the nearest ones
  are 3 apart.
- 2 to 10 classes of two components each.

Everything is drawn from the seed. Means have a root mean square near 1. The standard deviation is at most 0.2
(separated) or 0.3 (overlapping), small beside the noise at most timesteps: to a classifier of clean samples, noisy ones
are new, as noisy images are.
"""

import re
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.errors import GradscopeError, one_of
from gradscope.models.mixture import Mixture

SHAPES = {"points": (2,), "vectors": (64,), "images": (3, 32, 32)}
COMPONENTS = 2
"""Components of each class."""
_APART = {"separated": (8.0, 0.2), "overlapping": (3.0, 0.3)}
"""Least distance of means of different classes in standard deviations, and the largest standard deviation."""
_CLASSES = range(2, 11)
_CANDIDATES = 32
"""Points are spread: each is the candidate that lies farthest from those before it."""


class Named(NamedTuple):
    """The parts of a mixture's name."""

    kind: str
    overlap: str
    classes: int


def parse(name: str) -> Named:
    """The parts of a name.

    Raises
    ------
    GradscopeError
        There is no such mixture.

    Examples
    --------
    >>> parse("images-overlapping-10")
    Named(kind='images', overlap='overlapping', classes=10)
    """
    found = re.fullmatch(r"(\w+)-(\w+)-(\d{1,2})", name)
    if not found or found[1] not in SHAPES or found[2] not in _APART or int(found[3]) not in _CLASSES:
        raise GradscopeError(
            f"mixtures: got {name!r}; a name has the kind ({', '.join(SHAPES)}), the overlap ({', '.join(_APART)}) and "
            f"{_CLASSES[0]} to {_CLASSES[-1]} classes; {one_of(name, [f'{k}-{o}-4' for k in SHAPES for o in _APART])}"
        )
    return Named(found[1], found[2], int(found[3]))


class Wide(Mixture):
    """A mixture in float64, whose covariance is a multiple of the identity.

    Distances come from inner products, whose rounding does not matter in float64. For images they take a hundredth of
    the time.
    """

    def logits(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        return super().logits(x.double(), alphas_cumprod)

    def epsilon(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        return super().epsilon(x.double(), alphas_cumprod)

    def gradient(self, x: Tensor, label: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        return super().gradient(x.double(), label, alphas_cumprod)

    @property
    def std(self) -> float:
        """Standard deviation of every element of a component."""
        return float(self.variances) ** 0.5

    @property
    def each(self) -> int:
        """Components of each class."""
        return len(self.means) // self.classes

    def nearest(self, x: Tensor) -> Tensor:
        """The most probable component of clean samples, ``(n,)``; those of class k begin at ``k * each``."""
        return self._components(x.double(), 1.0).argmax(dim=1)

    def _components(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        a = torch.as_tensor(alphas_cumprod, dtype=x.dtype).reshape(-1, 1)
        means = self.means.flatten(1)
        square = a * means.square().sum(dim=1) - 2 * a**0.5 * (x.flatten(1) @ means.T)
        return -(square + x.flatten(1).square().sum(dim=1, keepdim=True)) / (2 * self._variance(a))


def make(name: str, seed: int = 0) -> Wide:
    """A mixture by its name.

    Raises
    ------
    GradscopeError
        There is no such mixture.

    Examples
    --------
    >>> make("vectors-separated-4").means.shape
    torch.Size([8, 64])
    """
    kind, overlap, classes = parse(name)
    generator = torch.Generator().manual_seed(seed)
    means = _spread(classes, generator) if kind == "points" else _patterns(kind, classes, generator)
    ratio, largest = _APART[overlap]
    owner = torch.arange(len(means)) // COMPONENTS
    gaps = torch.cdist(means.flatten(1), means.flatten(1)).where(owner[:, None] != owner, torch.inf)
    gap = float(gaps.min())
    std = min(largest, gap / ratio)
    if overlap == "overlapping":  # all means move towards their centre until the nearest ones are that near
        centre = means.mean(dim=0)
        means = centre + (ratio * std / gap) * (means - centre)
    return Wide(means.unflatten(0, (classes, COMPONENTS)), std)


def _spread(classes: int, generator: torch.Generator) -> Tensor:
    """Points in a square, of root mean square 1."""
    points = [torch.rand(2, generator=generator, dtype=torch.float64)]
    while len(points) < classes * COMPONENTS:
        candidates = torch.rand(_CANDIDATES, 2, generator=generator, dtype=torch.float64)
        points.append(candidates[torch.cdist(candidates, torch.stack(points)).amin(dim=1).argmax()])
    order = torch.randperm(len(points), generator=generator)  # so that a class has distant components, too
    means = torch.stack(points)[order]
    means = means - means.mean(dim=0)
    return means / means.square().mean().sqrt()


def _patterns(kind: str, classes: int, generator: torch.Generator) -> Tensor:
    """A common centre and a pattern for each component, together of root mean square 1."""
    shape = SHAPES[kind]
    drawn = torch.randn(classes * COMPONENTS + 1, *shape, generator=generator, dtype=torch.float64)
    if kind == "images":
        smooth = torch.nn.functional.avg_pool2d(drawn, 7, stride=1, padding=3)
        drawn = smooth / smooth.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        place = torch.linspace(-1, 1, shape[-1], dtype=torch.float64)
        inside = place[:, None].square() + place.square() < 0.5**2
        drawn[1:] *= inside
    return (drawn[:1] + drawn[1:]) / 2**0.5
