"""Pseudoinverse-guided diffusion, PiGDM (ICLR 2023, openreview.net/forum?id=9_gsMA8MRKQ, algorithm 1).

For a linear measurement y = H x_0 + noise of standard deviation sigma_y, and x_0 given x_t taken as normal around
x0-hat with variance r_t^2 = noise_t^2 / (signal_t^2 + noise_t^2), p(y | x_t) is normal, and its gradient exact::

    g = (d x0-hat / d x_t)^T H^T (r_t^2 H H^T + sigma_y^2 I)^{-1} (y - H x0-hat)

prev_sample gains ``s sqrt(alphas_cumprod) r_t^2 g``, as in the paper. The linear system is solved by conjugate
gradients, with H^T by autograd, so H needs no pseudoinverse. One forward and one backward pass of the denoiser a step.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from gradscope.config import ClassifierInput
from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.measurement import Measurement
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.objectives import slope
from gradscope.sampling.guidance.view import Pull, View, pull
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class PiGDM(Method):
    """Parameters
    ----------
    iterations
        Largest number of conjugate-gradient steps, at least 1.
    """

    iterations: int = 50
    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0",)
    enters: ClassVar[Entry] = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("iterations", least=1)

    def check_guide(self, guide: nn.Module) -> None:
        if not isinstance(guide, Measurement):
            raise GradscopeError(
                f"guidance.method: pigdm needs a linear measurement as its guide, got {type(guide).__name__}; give "
                "{measurement: package.module:operator, target: ..., noise_std: ...}, or take dps"
            )

    def pull(self, view: View) -> Pull:
        guide, level = view.guide, view.times.level
        assert isinstance(guide, Measurement)
        answer = view.ask()
        x_0 = view.look.x_0
        assert x_0 is not None
        variance = level.noise**2 / level.scale**2
        back = guide.solved(x_0.detach(), variance, view.samples, self.iterations, view.look.is_first)
        gradient = slope((x_0.double() * back).flatten(1).sum(dim=1), view.x_t).double()
        return pull(level.signal / level.scale * variance * gradient, answer)
