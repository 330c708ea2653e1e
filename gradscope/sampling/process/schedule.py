"""The steps of a diffusers scheduler: noise levels, predictions, and how guidance enters each step."""

import copy
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from gradscope.models.schedulers import configuration_of, setting
from gradscope.sampling.process.checks import (
    refuse_inexact,
    refuse_levels,
    refuse_options,
    refuse_responses,
    set_timesteps,
)
from gradscope.sampling.process.level import Level, is_flow, level_of_sigma, posterior_sigma
from gradscope.sampling.process.posterior import LEARNED, Posterior, learns_variance, posterior
from gradscope.sampling.process.responses import Response, responses, seek

Entry = Literal["process", "prediction", "x0", "sample"]
"""How guidance enters a step.

``prediction``: the score of x_t gains it, so the noise prediction loses it (algorithm 2 of arXiv 2105.05233).
``x0``: x0-hat gains it, while the noise prediction stays (arXiv 2311.16424).
``sample``: prev_sample gains it.
``process``: the posterior mean gains it for DDPM, the score for any other scheduler.
"""


@dataclass(frozen=True)
class Prediction:
    """Predictions from a denoiser's output; tensors of shape ``(n, *sample)``."""

    native: Tensor
    """The denoiser's output as the scheduler takes it (epsilon, x0, v, velocity, or EDM's)."""
    model_output: Tensor
    """Epsilon."""
    pred_original_sample: Tensor
    """x0-hat, clamped where the scheduler clips."""
    variance: Tensor | None = None
    """What the denoiser predicts of the variance, if it does."""

    def detached(self) -> "Prediction":
        """The same without a graph."""
        variance = None if self.variance is None else self.variance.detach()
        return Prediction(
            self.native.detach(), self.model_output.detach(), self.pred_original_sample.detach(), variance
        )


@dataclass(frozen=True)
class Times:
    """Constants of one evaluation of the denoiser."""

    step: int
    timestep: float
    level: Level
    alphas_cumprod: float
    """Share of signal in x_t, ``signal^2 / (signal^2 + noise^2)``."""
    sigma: float
    """Standard deviation of the DDPM posterior (equation 7 of arXiv 2006.11239); 0 where the noise does not fall."""
    sigma_step: float
    """Standard deviation of noise by DDPM's variance type: sigma, or sqrt(beta_t) for `fixed_large`."""
    noise_added: float
    """Standard deviation of the noise that the step adds, if it is fixed; 0 where it adds none."""
    following: Level
    """Noise level of prev_sample: that of the next evaluation, or the scheduler's last."""
    gains: dict[Entry, float | None]
    """Shift of prev_sample per unit of guidance, by how it enters; None where that is undefined."""
    change: float | None
    """Change of the native prediction per unit of guidance of the score; None where that is undefined."""
    posterior: Posterior | None = None
    """Constants of the posterior; DDPM alone has them."""


class Schedule:
    """A scheduler with its timesteps set.

    Parameters
    ----------
    scheduler
        One of `gradscope.models.schedulers.SCHEDULERS`; it is copied.
    num_inference_steps
        Number of steps, which the scheduler spaces. Second-order solvers evaluate the denoiser more often.
    eta, use_clipped_model_output
        Options of `DDIMScheduler.step`: the share of DDPM's noise that it adds, and whether epsilon is derived from the
        clamped x0-hat.

    Attributes
    ----------
    has_memory : bool
        Whether a step depends on earlier predictions or samples.
    goes_back : bool
        Whether some steps start from a sample that the solver kept, not from the one that they get: those of
        correctors (UniPC) and of steps with several evaluations (Heun).

    Raises
    ------
    GradscopeError
        The steps cannot be computed exactly: another scheduler, thresholding, timesteps outside [0, T), a number of
        timesteps other than requested, or an epsilon prediction at signal 0.
    """

    def __init__(
        self, scheduler: Any, num_inference_steps: int, eta: float = 0.0, use_clipped_model_output: bool = False
    ) -> None:
        refuse_inexact(scheduler)
        self.options = refuse_options(scheduler, eta, use_clipped_model_output)
        config = scheduler.config
        # A solver that drops a learned variance would cut the prediction to three channels; `predict` splits it.
        drops = not isinstance(scheduler, DDPMScheduler) and setting(scheduler, "variance_type") in LEARNED
        self.scheduler = type(scheduler).from_config(config, **({"variance_type": None} if drops else {}))
        set_timesteps(self.scheduler, num_inference_steps)
        if hasattr(self.scheduler, "set_begin_index"):
            self.scheduler.set_begin_index(0)
        self.num_train_timesteps: int = config.num_train_timesteps
        self.is_ddpm = isinstance(scheduler, DDPMScheduler)
        self.is_edm = type(scheduler).__name__.startswith("EDM")
        self.prediction_type = "flow_prediction" if is_flow(scheduler) else config.prediction_type
        self.clip_range: float | None = config.clip_sample_range if setting(scheduler, "clip_sample") else None
        self.learns_variance = learns_variance(scheduler)
        self.has_memory = self.goes_back = False
        self.levels = [self._level(i) for i in range(len(self.scheduler.timesteps))]
        refuse_levels(self.scheduler, self.levels, self.prediction_type)
        if self.is_ddpm:
            self.times: list[Times] = []
            for i in range(len(self.levels)):
                self.times.append(self._ddpm_times(i))
        else:
            found, self.has_memory, self.goes_back = responses(self.scheduler, self.options)
            refuse_responses(self.scheduler, found, self.options)
            self.times = [self._times(i, response) for i, response in enumerate(found)]

    def _level(self, i: int) -> Level:
        sigmas = getattr(self.scheduler, "sigmas", None)
        if sigmas is None:
            share = self._share(i)
            return Level(share**0.5, (1 - share) ** 0.5)
        between = getattr(self.scheduler, "sigmas_interpol", None)
        if between is not None and i % 2 == 1:  # KDPM2 evaluates every second time between its sigmas
            sigmas, i = between, i - ("Ancestral" in type(self.scheduler).__name__)
        return level_of_sigma(self.scheduler, float(sigmas[i]))

    @property
    def _final(self) -> Level:
        """Noise level of the last prev_sample, which is not clean with every scheduler."""
        if hasattr(self.scheduler, "sigmas"):
            return level_of_sigma(self.scheduler, float(self.scheduler.sigmas[-1]))
        share = float(getattr(self.scheduler, "final_alpha_cumprod", 1.0))
        return Level(share**0.5, (1 - share) ** 0.5)

    def _share(self, i: int) -> float:
        return float(self.scheduler.alphas_cumprod[int(self.scheduler.timesteps[i])])

    def _times(self, i: int, response: Response) -> Times:
        level = self.levels[i]
        later = [*self.levels[i + 1 :], self._final]
        following = later[0]
        if isinstance(self.scheduler, DDIMScheduler):
            before = self._before(i)
            following = Level(before**0.5, (1 - before) ** 0.5)
            later = [following]
        share = level.alphas_cumprod if hasattr(self.scheduler, "sigmas") else self._share(i)
        # Where a solver evaluates one level twice, the posterior is that of the next level below.
        sigma = posterior_sigma(level, next((other for other in later if other.noise < level.noise), following))
        change = self._change(level)
        gain = None if change is None else _rounded(change * response.prediction, level, following)
        gains: dict[Entry, float | None] = {
            "process": gain,
            "prediction": gain,
            "x0": None if self.has_memory else following.signal,
            "sample": 1.0 if level.signal > 0 else None,
        }
        timestep = self.scheduler.timesteps[i].item()
        return Times(i, timestep, level, share, sigma, sigma, response.noise, following, gains, change)

    def _before(self, i: int) -> float:
        """DDIM's alphas_cumprod at the next timestep in sampling order."""
        previous = int(self.scheduler.timesteps[i]) - self.num_train_timesteps // len(self.scheduler.timesteps)
        table = self.scheduler
        return float(table.alphas_cumprod[previous] if previous >= 0 else table.final_alpha_cumprod)

    def _change(self, level: Level) -> float | None:
        if not self.is_edm:
            return level.change(self.prediction_type)
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
        return level.noise**2 / float(self.scheduler.precondition_outputs(zero, one, level.noise))

    def _ddpm_times(self, i: int) -> Times:
        scheduler, timesteps, level = self.scheduler, self.scheduler.timesteps, self.levels[i]
        t, previous = int(timesteps[i]), int(timesteps[i + 1]) if i + 1 < len(timesteps) else -1
        now, before = self._share(i), self._share(i + 1) if previous >= 0 else float(scheduler.one)
        beta = 1 - now / before
        variance = beta * (1 - before) / (1 - now)
        large = scheduler.config.variance_type == "fixed_large"
        constants = posterior(scheduler, t, previous, self.times[-1].posterior if i else None)
        # The scheduler clamps a variance of 0 to 1e-20, which adds no noise.
        noise_added = constants.sigma if large or variance > 0 else 0.0
        change, of_x_0 = level.change("sample"), before**0.5 * beta / (1 - now)
        gains: dict[Entry, float | None] = {
            "process": 1.0,
            "prediction": None if change is None else change * of_x_0,
            "x0": of_x_0,
            "sample": 1.0 if level.signal > 0 else None,
        }
        following = Level(before**0.5, (1 - before) ** 0.5)
        sigma_step = beta**0.5 if large else variance**0.5
        return Times(i, t, level, now, variance**0.5, sigma_step, noise_added, following, gains, None, constants)

    def coordinates(self) -> dict[str, np.ndarray]:
        """`timestep`, `alphas_cumprod`, `sigma`, `signal` and `noise` of every evaluation, each ``(timesteps,)``."""
        found = {
            name: np.array([getattr(t, name) for t in self.times]) for name in ("timestep", "alphas_cumprod", "sigma")
        }
        return found | {name: np.array([getattr(t.level, name) for t in self.times]) for name in ("signal", "noise")}

    @property
    def init_noise_sigma(self) -> float:
        """Standard deviation of the initial noise."""
        return float(getattr(self.scheduler, "init_noise_sigma", 1.0))

    def model_input(self, x_t: Tensor, times: Times) -> Tensor:
        """What the denoiser gets of x_t; differentiable. Schedulers in sigma scale it to unit variance."""
        if not hasattr(self.scheduler, "scale_model_input"):
            return x_t
        scheduler = copy.copy(self.scheduler)
        seek(scheduler, times.step)
        if hasattr(scheduler, "sigmas_interpol"):  # KDPM2 looks into its memory for the sigma
            scheduler.sample = x_t if times.step % 2 else None
        return scheduler.scale_model_input(x_t, scheduler.timesteps[times.step])

    def model_timesteps(self, times: Times, count: int, device: torch.device) -> Tensor:
        """The denoiser's timesteps, ``(count,)``, in the scheduler's type."""
        return self.scheduler.timesteps[times.step].to(device).expand(count)

    def predict(self, output: Tensor, x_t: Tensor, times: Times) -> Prediction:
        """Predictions of the denoiser's output, which may have a variance in further channels; differentiable."""
        native, variance = output, None
        if output.ndim > 1 and output.shape[1] == 2 * x_t.shape[1]:
            native, variance = output.split(x_t.shape[1], dim=1)
        if self.is_edm:
            x_0 = self.scheduler.precondition_outputs(x_t, native, times.level.noise)
            epsilon = (x_t - times.level.signal * x_0) / times.level.noise
        else:
            x_0 = times.level.original(native, x_t, self.prediction_type)
            epsilon = times.level.epsilon(native, x_t, self.prediction_type)
        return Prediction(native, epsilon, self.clip(x_0), variance if self.learns_variance else None)

    def original_sample(self, x_t: Tensor, epsilon: Tensor, times: Times) -> Tensor:
        """x0-hat of x_t for a given epsilon, clamped where the scheduler clips."""
        return self.clip(times.level.original(epsilon, x_t, "epsilon"))

    def clip(self, x_0: Tensor) -> Tensor:
        return x_0 if self.clip_range is None else x_0.clamp(-self.clip_range, self.clip_range)

    def spread(self, prediction: Prediction, times: Times) -> float | Tensor:
        """Standard deviation of DDPM's noise by its variance type; one per element, ``(n, *sample)``, if learned."""
        if prediction.variance is None or times.posterior is None:
            return times.sigma_step
        return times.posterior.spread(prediction.variance.double(), self.scheduler.config.variance_type)

    def noise_added(self, prediction: Prediction, times: Times) -> float | Tensor:
        """Standard deviation of the noise that the step adds; the rms over elements, ``(n,)``, if it is learned."""
        spread = self.spread(prediction, times)
        if isinstance(spread, float):
            return times.noise_added
        return spread.square().flatten(1).mean(dim=1).sqrt() * (times.timestep > 0)

    def time(self, times: Times) -> float | None:
        """See `GuidedStep.time`."""
        return 1 - (times.step + 1) / len(self.times) if self.is_edm else None

    def configuration(self) -> dict[str, Any]:
        """See `configuration_of`."""
        return configuration_of(self.scheduler)


def _rounded(gain: float, level: Level, following: Level) -> float:
    """The gain of a step, 0 if it is rounding: the level stays where it is, up to the scheduler's float32."""
    whole = level.noise**2 / level.signal * following.scale
    return gain if abs(gain) > 1e-6 * whole else 0.0
