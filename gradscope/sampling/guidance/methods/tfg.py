"""Training-free guidance, TFG (arXiv 2409.15761, algorithm 1), the union of LGD, DPS, MPGD, FreeDoM and more.

With E~ the guide averaged over noised clean samples (as in LGD, of standard deviation ``std noise_t``), and s for the
next noise level::

    Delta_t = rho grad_{x_t} E~(x0-hat(x_t))
    Delta_0: `steps` times  Delta_0 += mu grad_{x_0} E~(x0-hat + Delta_0)
    x_s = Sample(x_t, x0-hat) + signal_s / signal_t Delta_t + signal_s Delta_0

The whole is recorded as one vector, which prev_sample gains; take scale 1 and no normalisation for the paper's step.
Each repetition is one forward pass of the denoiser, and one backward pass if rho is not 0.
"""

from dataclasses import dataclass
from typing import ClassVar

from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.methods.lgd import mean_answer
from gradscope.sampling.guidance.methods.recurrence import Recurrent
from gradscope.sampling.guidance.view import Pull, View, leaf, pull
from gradscope.sampling.process import Entry


@dataclass(frozen=True)
class TFG(Recurrent):
    """Parameters
    ----------
    rho, mu
        Strengths of the gradients at x_t and at x0-hat.
    steps
        Number of steps at x0-hat, at least 0.
    std, draws
        Standard deviation of the noise on x0-hat over that of x_t, and the number of draws.
    recurrence, between
        See `FreeDoM`.
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
        for name, least in (("steps", 0), ("std", 0), ("draws", 1)):
            if not getattr(self, name) >= least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    def pull(self, view: View) -> Pull:
        now, following = view.times.level, view.times.following
        std = self.std * now.noise
        answer = mean_answer(view, view.x_0, std, self.draws)
        assert view.x_0 is not None
        vector = 0.0 * view.x_t.detach().double()
        if self.rho and now.signal > 0:
            vector = self.rho * following.signal / now.signal * view.gradient(answer.scores, view.x_t)
        moved = view.x_0.detach()
        for _ in range(self.steps if self.mu else 0):
            at = leaf(moved)
            scores = mean_answer(view, at, std, self.draws).scores
            moved = moved + self.mu * view.gradient(scores, at).to(moved.dtype)
        return pull(vector + following.signal * (moved.double() - view.x_0.detach().double()), answer)
