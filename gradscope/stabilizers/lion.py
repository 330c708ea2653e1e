"""Lion over the gradients of successive timesteps (arXiv 2302.06675, algorithm 2)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.checks import require_betas


class LionState(NamedTuple):
    exp_avg: Tensor


@dataclass(frozen=True)
class Lion(Stabilizer):
    """u_k = sign(beta1 m_{k-1} + (1 - beta1) g_k), then m_k = beta2 m_{k-1} + (1 - beta2) g_k, with m_0 = 0.

    The ascent step with learning rate 1 and no weight decay. Where the interpolation is exactly 0, so is the update.

    Parameters
    ----------
    betas
        Decay rates of the interpolation and of m, each in [0, 1).

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    betas: tuple[float, float] = (0.9, 0.99)

    def __post_init__(self) -> None:
        require_betas(self.betas)

    def init(self, x_T: Tensor) -> LionState:
        return LionState(torch.zeros_like(x_T))

    def update(self, gradient: Tensor, state: LionState) -> tuple[Tensor, LionState]:
        beta1, beta2 = self.betas
        update = torch.lerp(state.exp_avg.to(gradient.dtype), gradient, 1 - beta1).sign()
        return update, LionState(torch.lerp(state.exp_avg.to(gradient.dtype), gradient, 1 - beta2))
