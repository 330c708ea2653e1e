"""AdaGrad over the gradients of successive timesteps (Duchi, Hazan and Singer, JMLR 12, 2011)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.settings import require_eps


class AdaGradState(NamedTuple):
    sum_sq: Tensor


@dataclass(frozen=True)
class AdaGrad(Stabilizer):
    """u_k = g_k / (sqrt(g_1^2 + ... + g_k^2) + eps): the ascent step of `torch.optim.Adagrad` with learning rate 1.

    Parameters
    ----------
    eps
        Above 0, also in float32.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    eps: float = 1e-10

    def __post_init__(self) -> None:
        require_eps(self.eps)

    def init(self, x_T: Tensor) -> AdaGradState:
        return AdaGradState(torch.zeros_like(x_T))

    def update(self, gradient: Tensor, state: AdaGradState) -> tuple[Tensor, AdaGradState]:
        sum_sq = state.sum_sq + gradient.square()
        return gradient / (sum_sq.sqrt() + self.eps), AdaGradState(sum_sq)
