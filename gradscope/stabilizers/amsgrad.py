"""AMSGrad over the gradients of successive timesteps (arXiv 1904.09237)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.adam import Adam, AdamState, moments


class AMSGradState(NamedTuple):
    moments: AdamState
    max_exp_avg_sq: Tensor


@dataclass(frozen=True)
class AMSGrad(Adam):
    """ADAM with the largest v so far in place of v: the ascent step of `torch.optim.Adam(amsgrad=True)`.

    The settings are those of `Adam`. As in torch, the largest v is divided by the bias correction of the current step;
    the paper's algorithm has no correction.
    """

    def init(self, x_T: Tensor) -> AMSGradState:
        return AMSGradState(super().init(x_T), torch.zeros_like(x_T))

    def update(self, gradient: Tensor, state: AMSGradState) -> tuple[Tensor, AMSGradState]:
        latest = moments(gradient, state.moments, self.betas)
        largest = torch.maximum(state.max_exp_avg_sq, latest.exp_avg_sq)
        return self._quotient(latest._replace(exp_avg_sq=largest)), AMSGradState(latest, largest)
