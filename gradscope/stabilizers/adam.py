"""ADAM over the gradients of successive timesteps (arXiv 1412.6980; as a stabiliser of guidance, arXiv 2406.17399)."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.checks import require_betas, require_eps_or_rms


class AdamState(NamedTuple):
    exp_avg: Tensor
    exp_avg_sq: Tensor
    step: int


def moments(gradient: Tensor, state: AdamState, betas: tuple[float, float]) -> AdamState:
    """Next state: m_k = beta1 m_{k-1} + (1 - beta1) g_k and v_k = beta2 v_{k-1} + (1 - beta2) g_k^2."""
    exp_avg = torch.lerp(state.exp_avg.to(gradient.dtype), gradient, 1 - betas[0])
    exp_avg_sq = betas[1] * state.exp_avg_sq + (1 - betas[1]) * gradient.square()
    return AdamState(exp_avg, exp_avg_sq, state.step + 1)


@dataclass(frozen=True)
class Adam(Stabilizer):
    """u = m_hat / (sqrt(v_hat) + eps): the ascent step of `torch.optim.Adam` with learning rate 1.

    The defaults are those of GradCheck (arXiv 2406.17399). Its follow-up (arXiv 2507.00687) has eps 1e-4 and no bias
    correction.

    Parameters
    ----------
    betas
        Decay rates of m and v, each in [0, 1).
    eps
        Above 0, also in float32; or ``"rms"``: the root mean square of sqrt(v_hat) over the elements of each sample.
        Then elements whose gradients are small beside the sample's keep small updates, and the update does not depend
        on the gradient's scale.
    bias_correction
        Divide m and v by 1 - beta^k.

    Raises
    ------
    ValueError
        A setting is out of range.

    Examples
    --------
    >>> gradient = torch.tensor([[3.0, 4.0, 1e-3, 0.0]])  # of root mean square 2.5
    >>> for stabilizer in (Adam(), Adam(eps="rms")):
    ...     update, _ = stabilizer.update(gradient, stabilizer.init(gradient))
    ...     print([round(value, 4) for value in update[0].tolist()])
    [1.0, 1.0, 1.0, 0.0]
    [0.5455, 0.6154, 0.0004, 0.0]
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float | Literal["rms"] = 1e-8
    bias_correction: bool = True

    def __post_init__(self) -> None:
        require_betas(self.betas)
        require_eps_or_rms(self.eps)

    def init(self, x_T: Tensor) -> Any:
        return AdamState(torch.zeros_like(x_T), torch.zeros_like(x_T), 0)

    def update(self, gradient: Tensor, state: Any) -> tuple[Tensor, Any]:
        state = moments(gradient, state, self.betas)
        return self._quotient(state), state

    def _quotient(self, state: AdamState) -> Tensor:
        correction1, correction2 = (1 - beta**state.step if self.bias_correction else 1.0 for beta in self.betas)
        mean, root = state.exp_avg / correction1, (state.exp_avg_sq / correction2).sqrt()
        if self.eps != "rms":
            return mean / (root + self.eps)
        rms = root.flatten(1).square().mean(dim=1).sqrt().view(-1, *[1] * (root.ndim - 1))
        return (mean / (root + rms)).where(rms != 0, 0.0)  # every square is 0, or too small for the dtype
