"""RMSProp over the gradients of successive timesteps (Tieleman and Hinton, 2012)."""

from dataclasses import dataclass

from torch import Tensor

from gradscope.stabilizers.adam import Adam, AdamState
from gradscope.stabilizers.base import Stabilizer
from gradscope.stabilizers.settings import require_eps, require_fraction


@dataclass(frozen=True)
class RMSProp(Stabilizer):
    """u = g / (sqrt(v_hat) + eps): ADAM with beta1 = 0.

    With bias correction (the default) this is the ascent step of `torch.optim.Adam(betas=(0, beta2))`; without it
    v_hat = v, as in `torch.optim.RMSprop(alpha=beta2)`. The defaults are ADAM's, so that only the momentum differs.

    Parameters
    ----------
    beta2
        Decay rate of v, in [0, 1).
    eps
        Above 0, also in float32.
    bias_correction
        Divide v by 1 - beta2^k.

    Raises
    ------
    ValueError
        A setting is out of range.
    """

    beta2: float = 0.999
    eps: float = 1e-8
    bias_correction: bool = True

    def __post_init__(self) -> None:
        require_fraction("beta2", self.beta2)
        require_eps(self.eps)

    @property
    def _adam(self) -> Adam:
        return Adam((0.0, self.beta2), self.eps, self.bias_correction)

    def init(self, x_T: Tensor) -> AdamState:
        return self._adam.init(x_T)

    def update(self, gradient: Tensor, state: AdamState) -> tuple[Tensor, AdamState]:
        return self._adam.update(gradient, state)
