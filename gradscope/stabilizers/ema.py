"""Exponential moving average of the gradients."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.checks import require_fraction


class EMAState(NamedTuple):
    exp_avg: Tensor
    step: int


@dataclass(frozen=True)
class EMA(Stabilizer):
    """m_k = beta m_{k-1} + (1 - beta) g_k with m_0 = 0; u_k = m_k, or m_k / (1 - beta^k) with bias correction.

    Parameters
    ----------
    beta
        Decay rate, in [0, 1).
    bias_correction
        Divide m by 1 - beta^k.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    beta: float = 0.9
    bias_correction: bool = False

    def __post_init__(self) -> None:
        require_fraction("beta", self.beta)

    def init(self, x_T: Tensor) -> EMAState:
        return EMAState(torch.zeros_like(x_T), 0)

    def update(self, gradient: Tensor, state: EMAState) -> tuple[Tensor, EMAState]:
        step = state.step + 1
        exp_avg = torch.lerp(state.exp_avg.to(gradient.dtype), gradient, 1 - self.beta)
        update = exp_avg / (1 - self.beta**step) if self.bias_correction else exp_avg
        return update, EMAState(exp_avg, step)
