"""Universal guidance (arXiv 2302.07121, algorithm 1): forward and backward guidance, with recurrence.

Forward guidance is the gradient through the denoiser. Backward guidance ascends the guide at x0-hat alone, by `steps`
gradient steps of size `rate` from Delta = 0, and epsilon loses ``signal / noise Delta``. Both enter the score::

    v = forward grad_{x_t} E(x0-hat(x_t)) + signal_t / noise_t^2 Delta

Each repetition is one forward pass of the denoiser, one backward pass if forward is not 0, and ``max(1, steps)`` passes
of the guide.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.methods.ascent import ascent
from gradscope.sampling.guidance.methods.recurrence import Recurrent
from gradscope.sampling.guidance.view import Pull, View, pull
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class Universal(Recurrent):
    """Parameters
    ----------
    forward
        Weight of forward guidance.
    steps
        Number of steps of backward guidance, at least 0.
    rate
        Size of each of them.
    """

    forward: float = 1.0
    steps: int = 0
    rate: float = 1.0
    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0",)
    enters: ClassVar[Entry] = "prediction"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("forward")
        self.require("steps", least=0)
        self.require("rate")

    def pull(self, view: View) -> Pull:
        level = view.times.level
        answer, slope, delta = ascent(view, view.ask, self.forward != 0, self.steps, self.rate)
        vector = level.signal / level.noise**2 * delta
        return pull(vector if slope is None else self.forward * slope + vector, answer)
