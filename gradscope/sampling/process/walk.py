"""One trajectory of a scheduler: its steps, with the solver's memory and the samples' own noise."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gradscope.sampling.process.responses import seek, takes, twin, unclamped
from gradscope.sampling.process.schedule import Prediction, Schedule, Times


class Walk:
    """Steps along a schedule. Without a change every step is the scheduler's own, bit for bit.

    Parameters
    ----------
    schedule
        The schedule.
    generators
        The samples' generators on the CPU, one each. A scheduler that adds noise draws from them.
    draw
        Draws the noise of all samples, ``(n, *sample)``, from the same generators, for DDPM.
    """

    def __init__(self, schedule: Schedule, generators: Sequence[torch.Generator], draw: Callable[[], Tensor]) -> None:
        self._schedule, self._generators, self._draw = schedule, list(generators), draw
        self._scheduler = twin(schedule.scheduler, torch.Size())  # its lists are the solver's memory
        if hasattr(self._scheduler, "is_scale_input_called"):  # it was, by `Schedule.model_input`
            self._scheduler.is_scale_input_called = True

    def step(self, prediction: Prediction, x_t: Tensor, times: Times, change: Tensor | None = None) -> Tensor:
        """prev_sample, ``(n, *sample)``.

        Parameters
        ----------
        prediction
            The denoiser's prediction at x_t.
        x_t
            Noisy samples.
        times
            The step.
        change
            What guidance adds to the native prediction, and the solver's memory keeps. x0-hat is clamped before it is
            added, and not afterwards, since that could turn the shift against the gradient. None: nothing.
        """
        if times.posterior is not None:
            return self._ddpm(prediction, x_t, times)
        scheduler = self._scheduler
        seek(scheduler, times.step)
        native = prediction.native
        if change is not None:
            if self._schedule.clip_range is not None:
                clipped = prediction.pred_original_sample
                epsilon = (x_t - times.level.signal * clipped) / times.level.noise
                native = times.level.prediction(clipped, epsilon, self._schedule.prediction_type)
                scheduler = unclamped(scheduler)
            native = native + change
        noise = {"generator": self._generators} if takes(scheduler, "generator") else {}
        made = scheduler.step(native, self._timestep(times), x_t, **self._schedule.options, **noise).prev_sample
        if scheduler is not self._scheduler:
            vars(self._scheduler).update(vars(scheduler) | {"_internal_dict": self._scheduler._internal_dict})
        return made

    def _timestep(self, times: Times) -> Tensor:
        return self._schedule.scheduler.timesteps[times.step]

    def _ddpm(self, prediction: Prediction, x_t: Tensor, times: Times) -> Tensor:
        """The step of `DDPMScheduler`, whose noise may be drawn ahead."""
        posterior, schedule = times.posterior, self._schedule
        assert posterior is not None
        match schedule.prediction_type:
            case "epsilon":
                x_0 = (x_t - posterior.noise * prediction.native) / posterior.signal
            case "sample":
                x_0 = prediction.native
            case _:
                x_0 = posterior.signal * x_t - posterior.noise * prediction.native
        mean = posterior.x_0 * schedule.clip(x_0) + posterior.x_t * x_t
        if times.timestep == 0:
            return mean
        if prediction.variance is None:
            return mean + posterior.sigma * self._draw()
        spread = posterior.spread(prediction.variance, schedule.scheduler.config.variance_type)
        return mean + spread * self._draw()

    def save(self, shape: torch.Size) -> Any:
        """The solver's memory before a step that may be repeated."""
        return twin(self._scheduler, shape)

    def restore(self, saved: Any, shape: torch.Size) -> None:
        """Go back to a memory that `save` returned."""
        self._scheduler = twin(saved, shape)
