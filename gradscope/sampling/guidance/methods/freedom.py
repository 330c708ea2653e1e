"""FreeDoM (arXiv 2303.09833, algorithm 2): an energy at x0-hat, through the denoiser, with recurrence.

prev_sample gains the gradient, and the step may be repeated::

    x_{t-1} = x'_{t-1} + s grad_{x_t} E(x0-hat(x_t))

Each repetition is one forward and one backward pass of the denoiser.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.methods.recurrence import Recurrent
from gradscope.sampling.guidance.view import Pull, View, pull
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class FreeDoM(Recurrent):
    """Its settings are those of `Recurrent`."""

    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0",)
    enters: ClassVar[Entry] = "sample"

    def pull(self, view: View) -> Pull:
        answer = view.ask()
        return pull(view.gradient(answer.scores, view.x_t), answer)
