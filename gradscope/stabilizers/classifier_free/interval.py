"""Guidance in a limited interval of noise levels (arXiv 2404.07724).

Guidance at high noise takes away variety, and at low noise it does little. The paper guides between two noise levels
sigma = noise / signal, and takes the conditional prediction elsewhere:

    guided prediction = u + w(sigma) (c - u),    w(sigma) = w for low < sigma <= high, else 1.

As u + w d this is d = c - u inside, and d = (c - u) / w outside. It is the same in every type of prediction.

diffusers has no interval of noise levels. The `start` and `stop` of its guiders are shares of the steps, and outside
they take the conditional prediction, too.
"""

import math
from dataclasses import dataclass

from torch import Tensor

from gradscope.stabilizers.classifier_free.base import Remedy
from gradscope.stabilizers.classifier_free.predictions import Predictions


@dataclass(frozen=True)
class LimitedInterval(Remedy):
    """Guidance between two noise levels, and the conditional prediction elsewhere (arXiv 2404.07724).

    Use it last: outside of the interval the given difference is without effect.

    Parameters
    ----------
    low, high
        Bounds of sigma = noise / signal: guided where low < sigma <= high. 0 <= low < high; the default is everywhere.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> import torch
    >>> c, u = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]])
    >>> for noise in (0.6, 0.8):
    ...     at = Predictions(c, u, 3.0, signal=(1 - noise**2) ** 0.5, noise=noise)
    ...     difference, _ = LimitedInterval(low=0.2, high=1.0).update_difference(at.difference, None, at)
    ...     print(at.guided(difference).tolist())
    [[4.0, -2.0]]
    [[2.0, 0.0]]
    """

    low: float = 0.0
    high: float = math.inf

    def __post_init__(self) -> None:
        if not 0 <= self.low < self.high:
            raise ValueError(f"low and high must be 0 <= low < high, got {self.low} and {self.high}")

    def update_difference(self, difference: Tensor, state: None, at: Predictions) -> tuple[Tensor, None]:
        if self.low < at.sigma <= self.high:
            return difference, None
        return (at.difference / at.guidance_scale).to(difference.dtype), None
