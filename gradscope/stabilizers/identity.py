"""No stabiliser: the update is the gradient."""

from dataclasses import dataclass

from torch import Tensor

from gradscope.stabilizers.base import Stabilizer


@dataclass(frozen=True)
class Identity(Stabilizer):
    """u_t = g_t."""

    def init(self, x_T: Tensor) -> None:
        return None

    def update(self, gradient: Tensor, state: None) -> tuple[Tensor, None]:
        return gradient, None
