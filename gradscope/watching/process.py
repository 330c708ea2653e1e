"""What the watched loop's process says of itself: timesteps, noise levels, noise of a step, and its settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradscope.errors import GradscopeError
from gradscope.models.schedulers import configuration_of, setting
from gradscope.sampling.process import Level, Schedule, Times, posterior_sigma
from gradscope.watching.noise_level import (
    is_preconditioned,
    level_at,
    level_of_alphas,
    prediction_of,
    time_factor,
)


@dataclass(frozen=True)
class Process:
    """The scheduler of a loop, or what the user says of it.

    Parameters
    ----------
    scheduler
        A diffusers scheduler, guided-diffusion's process, any object with `alphas_cumprod`, or None.
    alphas_cumprod
        A table by timestep, in place of the scheduler's.
    timesteps
        The timesteps in sampling order, in place of the scheduler's.
    steps
        Number of evaluations of the denoiser, if nothing else gives it.
    prediction_type
        What the denoiser predicts, in place of the scheduler's statement.
    """

    scheduler: Any = None
    alphas_cumprod: Any = None
    timesteps: Sequence[float] | None = None
    steps: int | None = None
    prediction_type: str | None = None

    @property
    def can_step(self) -> bool:
        """Whether the scheduler has a `step` that can be watched."""
        return callable(getattr(self.scheduler, "step", None))

    @property
    def predicts(self) -> str | None:
        """What the denoiser predicts, one of `gradscope.sampling.process.PREDICTIONS`; None if unknown."""
        if self.prediction_type is not None:
            return self.prediction_type
        return None if is_preconditioned(self.scheduler) else prediction_of(self.scheduler)

    def times(self) -> np.ndarray | None:
        """The timesteps in sampling order, ``(timesteps,)``, float64, as they are now; None if unknown."""
        found = self.timesteps
        if found is None:
            found = getattr(self.scheduler, "timesteps", None)
            if found is None and hasattr(self.scheduler, "num_timesteps"):  # guided-diffusion's process
                known = getattr(self.scheduler, "timestep_map", None) or range(self.scheduler.num_timesteps)
                found = [t * time_factor(self.scheduler) for t in known][::-1]
        if found is None or len(found) == 0:
            return None
        return np.array([float(t) for t in found])

    def length(self) -> int:
        """Number of timesteps.

        Raises
        ------
        GradscopeError
            Nothing gives it.
        """
        times = self.times()
        if times is not None:
            return len(times)
        if self.steps is None:
            raise GradscopeError(
                "steps: the number of the loop's steps is not known; give steps=..., timesteps=[...] or a scheduler "
                "with timesteps"
            )
        return self.steps

    def level(self, timestep: float, index: int | None) -> Level | None:
        """The noise level of a step; `index` counts the scheduler's own steps."""
        if index is None and self.can_step and hasattr(self.scheduler, "sigmas"):
            return None  # the loop does not step it, so x_t may be scaled
        if self.alphas_cumprod is not None:
            return level_of_alphas(self.alphas_cumprod, timestep)
        return None if self.scheduler is None else level_at(self.scheduler, timestep, index)

    def levels(self, times: np.ndarray) -> list[Level | None]:
        """The noise levels at all timesteps."""
        return [self.level(float(t), i) for i, t in enumerate(times)]

    def constants(self, count: int) -> dict[int, Times]:
        """Constants of each step, by its number, for a scheduler whose steps are known exactly; else empty."""
        try:
            exact = Schedule(self.scheduler, count)
        except Exception:  # another scheduler, or other settings
            return {}
        times = self.times()
        if times is None or [t.timestep for t in exact.times] != times.tolist():
            return {}
        return {t.step: t for t in exact.times}

    def posterior_sigmas(self, times: np.ndarray) -> np.ndarray:
        """Standard deviation of the DDPM posterior (equation 7 of arXiv 2006.11239) at each timestep; NaN if unknown.

        Any process is a DDPM process times a factor. The following timestep is the next one with another level; after
        the last one there is no noise.
        """
        levels = self.levels(times)
        found = np.full(len(times), np.nan)
        for i, level in enumerate(levels):
            following = next((other for other in levels[i + 1 :] if other != level), Level(1.0, 0.0))
            if level is None or following is None or level.noise == 0:
                continue
            if level.alphas_cumprod < following.alphas_cumprod:
                found[i] = posterior_sigma(level, following)
        return found

    @property
    def thresholds(self) -> bool:
        """Whether the scheduler clamps x0-hat by dynamic thresholding."""
        return bool(setting(self.scheduler, "thresholding"))

    @property
    def clip_range(self) -> float | None:
        """Bound of x0-hat in the scheduler's own step; None if it is not clamped."""
        return setting(self.scheduler, "clip_sample_range") if setting(self.scheduler, "clip_sample") else None

    @property
    def num_train_timesteps(self) -> int | None:
        """T, if it is known."""
        found = getattr(getattr(self.scheduler, "config", None), "num_train_timesteps", None)
        if found is None and getattr(self.scheduler, "rescale_timesteps", False):
            return 1000
        if found is None:
            found = getattr(self.scheduler, "original_num_steps", getattr(self.scheduler, "num_timesteps", None))
        if found is None and self.alphas_cumprod is not None:
            found = len(self.alphas_cumprod)
        return found

    def settings(self) -> dict[str, Any]:
        """Name and settings of the scheduler."""
        if self.scheduler is None:
            return {}
        if hasattr(self.scheduler, "config"):
            return configuration_of(self.scheduler)
        return {"class": type(self.scheduler).__name__}
