"""Manifold preserving guided diffusion, MPGD (arXiv 2311.16424, algorithm 1, without an autoencoder).

x0-hat itself is moved, and the step goes on with the same predicted noise::

    x0' = x0-hat + s grad_{x0-hat} E(x0-hat)

With DDPM, prev_sample gains the move times the coefficient of x_0 in the posterior mean; with DDIM, Euler and others
without memory, times signal at the next noise level. The denoiser runs forward only: the gradient does not pass it.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.view import Pull, View, leaf, pull
from gradscope.sampling.process import Entry, Schedule


@dataclass(frozen=True)
class MPGD(Method):
    """It has no parameters."""

    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0_detached",)
    enters: ClassVar[Entry] = "x0"

    def pull(self, view: View) -> Pull:
        assert view.x_0 is not None
        x_0 = leaf(view.x_0)
        answer = view.ask(x_0)
        return pull(view.gradient(answer.scores, x_0), answer)

    def check(self, schedule: Schedule) -> None:
        if all(times.gains["x0"] is None for times in schedule.times):
            name = type(schedule.scheduler).__name__
            raise GradscopeError(
                f"guidance.method: mpgd moves x0-hat and keeps epsilon, but {name} makes steps of its memory, which "
                "has them together; take ddpm, ddim, or another scheduler without memory"
            )
