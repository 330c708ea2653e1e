"""ADAM over the gradients of successive timesteps (arXiv 1412.6980; as a stabiliser of guidance, arXiv 2406.17399)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer


class AdamState(NamedTuple):
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


@dataclass(frozen=True)
class Adam(Stabilizer):
    """u = m_hat / (sqrt(v_hat) + eps): the step of `torch.optim.Adam` with learning rate 1, uphill.

    The defaults are the paper's. Its follow-up (arXiv 2507.00687) has eps 1e-4 and no bias correction.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    bias_correction: bool = True

    def __post_init__(self) -> None:
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be two numbers in [0, 1), got {list(self.betas)}")
        if not self.eps > 0:
            raise ValueError(f"eps must be above 0, got {self.eps}")

    def init(self, x_T: Tensor) -> AdamState:
        return AdamState(torch.zeros_like(x_T), torch.zeros_like(x_T), 0)

    def update(self, gradient: Tensor, state: AdamState) -> tuple[Tensor, AdamState]:
        beta1, beta2 = self.betas
        step = state.step + 1
        exp_avg = torch.lerp(state.exp_avg, gradient, 1 - beta1)
        exp_avg_sq = beta2 * state.exp_avg_sq + (1 - beta2) * gradient.square()
        correction1, correction2 = (1 - beta1**step, 1 - beta2**step) if self.bias_correction else (1.0, 1.0)
        update = (exp_avg / correction1) / ((exp_avg_sq / correction2).sqrt() + self.eps)
        return update, AdamState(exp_avg, exp_avg_sq, step)
