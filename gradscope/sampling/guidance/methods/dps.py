"""Diffusion posterior sampling, DPS (arXiv 2209.14687, algorithm 1).

The gradient goes through the denoiser, and prev_sample gains it, whatever the process::

    x_{t-1} = x'_{t-1} + s grad_{x_t} phi(E(x0-hat(x_t)))

With ``norm``, phi(E) = -sqrt(-2 E). For a `Measurement` with standard deviation 1, E = -|y - A(x0-hat)|^2 / 2, so this
is -|y - A(x0-hat)|: the paper's step size, divided by the residual. Without it, phi(E) = E. One forward and one
backward pass of the denoiser a step.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.view import Pull, View
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class DPS(Method):
    """Parameters
    ----------
    norm
        Whether -sqrt(-2 E) is ascended instead of E; then E must not be above 0.
    """

    norm: bool = True
    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0",)
    enters: ClassVar[Entry] = "sample"

    def pull(self, view: View) -> Pull:
        answer = view.ask()
        scores = answer.scores
        gradient, log_factor = view.gradient(scores, view.x_t), scores.log_factor
        if self.norm:
            energy = scores.objective.detach()
            if bool((energy > 0).any()):
                raise GradscopeError(
                    "guidance.method.dps.norm: the guide's objective must not be above 0, got "
                    f"{float(energy.max()):g}; set norm: false"
                )
            factor = (-2 * energy).rsqrt().where(energy < 0, 0)
            gradient = gradient * factor.view(-1, *[1] * (gradient.ndim - 1))
            log_factor = log_factor + factor.log().clamp(min=-300)
        return Pull(gradient, answer, log_factor)
