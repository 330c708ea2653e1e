"""Recurrence ("time travel"): a step is taken several times, and noise is added between.

After each but the last time, x_t is drawn again from prev_sample by the forward process, algorithm 1 of arXiv
2302.07121 and algorithm 2 of arXiv 2303.09833, with s for the level of prev_sample::

    x_t = signal_t / signal_s * prev_sample + sqrt(noise_t^2 - (signal_t / signal_s)^2 noise_s^2) * noise
"""

from dataclasses import dataclass

from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.process import Schedule, Times


@dataclass(frozen=True)
class Recurrent(Method):
    """Base of methods that repeat steps.

    Parameters
    ----------
    recurrence
        How often each step is taken, at least 1.
    between
        Timesteps ``first <= t < end`` that are repeated; None for all.
    """

    recurrence: int = 1
    between: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("recurrence", least=1)
        if self.between is not None and not self.between[0] < self.between[1]:
            first, end = self.between
            raise ValueError(f"between must be two timesteps, first < end, got [{first:g}, {end:g}]")

    def check(self, schedule: Schedule) -> None:
        if self.recurrence > 1 and all(self.repeats(times) == 1 for times in schedule.times):
            first, last = schedule.times[0].timestep, schedule.times[-1].timestep
            low, end = self.between or (0, 0)
            raise GradscopeError(
                f"guidance.method: between: no timestep lies in [{low:g}, {end:g}); the {len(schedule.times)} steps go "
                f"from {first:g} to {last:g}"
            )

    def repeats(self, times: Times) -> int:
        inside = self.between is None or self.between[0] <= times.timestep < self.between[1]
        return self.recurrence if inside else 1


def renoised(prev_sample: Tensor, times: Times, noise: Tensor) -> Tensor:
    """x_t drawn again from prev_sample, see the module; `noise` is standard normal."""
    now, following = times.level, times.following
    ratio = now.signal / following.signal
    return ratio * prev_sample + max(now.noise**2 - (ratio * following.noise) ** 2, 0.0) ** 0.5 * noise
