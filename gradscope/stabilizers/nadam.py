"""NAdam, ADAM with Nesterov's momentum, over the gradients of successive timesteps (Dozat, ICLR workshop 2016)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.adam import AdamState, moments
from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.settings import require_betas, require_eps


class NAdamState(NamedTuple):
    moments: AdamState
    mu_product: float
    """mu_1 ... mu_k."""


@dataclass(frozen=True)
class NAdam(Stabilizer):
    """The ascent step of `torch.optim.NAdam` with learning rate 1.

    With mu_k = beta1 (1 - 0.96^(k momentum_decay) / 2) and M_k = mu_1 ... mu_k:
    u = ((1 - mu_k) / (1 - M_k) g_k + mu_{k+1} / (1 - M_{k+1}) m_k) / (sqrt(v_hat) + eps).

    Parameters
    ----------
    betas
        Decay rates of m and v, each in [0, 1).
    eps
        Above 0, also in float32.
    momentum_decay
        Rate at which mu approaches beta1, at least 0.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    momentum_decay: float = 4e-3

    def __post_init__(self) -> None:
        require_betas(self.betas)
        require_eps(self.eps)
        if not self.momentum_decay >= 0:
            raise ValueError(f"momentum_decay must be 0 or above, got {self.momentum_decay}")

    def init(self, x_T: Tensor) -> NAdamState:
        return NAdamState(AdamState(torch.zeros_like(x_T), torch.zeros_like(x_T), 0), 1.0)

    def update(self, gradient: Tensor, state: NAdamState) -> tuple[Tensor, NAdamState]:
        latest = moments(gradient, state.moments, self.betas)
        mu, mu_next = self._mu(latest.step), self._mu(latest.step + 1)
        product = state.mu_product * mu
        ahead = (1 - mu) / (1 - product) * gradient + mu_next / (1 - product * mu_next) * latest.exp_avg
        root = (latest.exp_avg_sq / (1 - self.betas[1] ** latest.step)).sqrt()
        return ahead / (root + self.eps), NAdamState(latest, product)

    def _mu(self, step: int) -> float:
        return self.betas[0] * (1 - 0.5 * 0.96 ** (step * self.momentum_decay))
