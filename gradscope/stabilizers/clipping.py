"""Clipping of each sample's gradient norm (arXiv 1211.5063)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.settings import require_positive


@dataclass(frozen=True)
class Clipping(Stabilizer):
    """u = g min(1, max_norm / ||g||), with the l2 norm of each sample.

    A gradient within the bound is returned bit for bit. The direction never changes, so under l2 normalisation clipping
    equals no stabiliser.

    Parameters
    ----------
    max_norm
        Above 0.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    max_norm: float = 1.0

    def __post_init__(self) -> None:
        require_positive("max_norm", self.max_norm)

    def init(self, x_T: Tensor) -> None:
        return None

    def update(self, gradient: Tensor, state: None) -> tuple[Tensor, None]:
        wide = gradient.double()  # its range covers the square of every float32 number
        length = torch.linalg.vector_norm(wide.flatten(1), dim=1).view(-1, *[1] * (gradient.ndim - 1))
        clipped = (wide * (self.max_norm / length)).to(gradient.dtype)
        return torch.where(length > self.max_norm, clipped, gradient), None
