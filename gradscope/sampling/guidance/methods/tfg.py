"""Training-free guidance, TFG (arXiv 2409.15761, algorithm 1), the union of LGD, DPS, MPGD, FreeDoM and more.

E~ is the guide averaged over noised clean samples, as in LGD. With s for the next noise level::

    Delta_t = rho grad_{x_t} E~(x0-hat(x_t)),  `steps` times  Delta_0 += mu grad_{x_0} E~(x0-hat + Delta_0)
    x_s = Sample(x_t, x0-hat) + signal_s / signal_t Delta_t + signal_s Delta_0

Scale 1 without normalisation is the paper's step. One forward pass a repetition, and one backward pass if rho is not 0.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.methods.ascent import ascent
from gradscope.sampling.guidance.methods.lgd import mean_answer
from gradscope.sampling.guidance.methods.recurrence import Recurrent
from gradscope.sampling.guidance.view import Pull, View, pull
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class TFG(Recurrent):
    """Parameters
    ----------
    rho
        Strength of the gradient at x_t.
    mu
        Strength of each step at x0-hat; 0 for none.
    steps
        Number of steps at x0-hat, at least 0.
    std
        Factor of LGD's r_t, at least 0; 0 asks about x0-hat alone.
    draws
        Number of noised clean samples that the guide is asked about, at least 1.
    """

    rho: float = 1.0
    mu: float = 0.0
    steps: int = 1
    std: float = 0.0
    draws: int = 4
    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0",)
    enters: ClassVar[Entry] = "sample"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in {"rho": float("-inf"), "mu": float("-inf"), "steps": 0, "std": 0, "draws": 1}.items():
            self.require(name, least)

    def pull(self, view: View) -> Pull:
        now, following = view.times.level, view.times.following
        rho = self.rho * following.signal / now.signal if now.signal > 0 else 0.0
        ask = partial(mean_answer, view, std=self.std, draws=self.draws)
        answer, slope, delta = ascent(view, ask, rho != 0, self.steps if self.mu else 0, self.mu)
        vector = following.signal * delta
        return pull(vector if slope is None else rho * slope + vector, answer)
