"""Nesterov's momentum over the gradients of successive timesteps (Sutskever et al., ICML 2013)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.settings import require_fraction


class NesterovState(NamedTuple):
    momentum_buffer: Tensor


@dataclass(frozen=True)
class Nesterov(Stabilizer):
    """b_k = momentum b_{k-1} + g_k with b_0 = 0; u_k = g_k + momentum b_k.

    The ascent step of `torch.optim.SGD(nesterov=True)` with learning rate 1 and no dampening.

    Parameters
    ----------
    momentum
        In [0, 1).

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    momentum: float = 0.9

    def __post_init__(self) -> None:
        require_fraction("momentum", self.momentum)

    def init(self, x_T: Tensor) -> NesterovState:
        return NesterovState(torch.zeros_like(x_T))

    def update(self, gradient: Tensor, state: NesterovState) -> tuple[Tensor, NesterovState]:
        buffer = self.momentum * state.momentum_buffer + gradient
        return gradient + self.momentum * buffer, NesterovState(buffer)
