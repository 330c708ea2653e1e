"""A diffusers scheduler, read exactly: predictions, posterior variance, and the unguided and guided step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from gradscope.errors import GradscopeError, one_of

VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large")
SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}


@dataclass(frozen=True)
class Prediction:
    """What a denoiser's output says of x_t; tensors of shape ``(n, channel, height, width)``."""

    native: Tensor
    """The denoiser's output as the scheduler takes it (epsilon, x0 or v)."""
    model_output: Tensor
    """Epsilon."""
    pred_original_sample: Tensor
    """x0-hat, clamped where the scheduler clips."""


@dataclass(frozen=True)
class Times:
    """Numbers of one sampling step."""

    step: int
    timestep: int
    alphas_cumprod: float
    sigma: float
    """Standard deviation of the DDPM posterior (equation 7 of arXiv 2006.11239); 0 at the last step."""
    sigma_step: float
    """Standard deviation of the noise that the DDPM sampler adds: sigma, or sqrt(beta_t) for `fixed_large`."""
    posterior: "Posterior | None" = None
    """Of a DDPM step."""


@dataclass(frozen=True)
class Posterior:
    """A DDPM step's numbers in float32, as the scheduler's own arithmetic gives them."""

    signal: float
    noise: float
    """sqrt(alphas_cumprod) and sqrt(1 - alphas_cumprod)."""
    x_0: float
    x_t: float
    """What the posterior mean takes of each (equation 7 of arXiv 2006.11239)."""
    sigma: float
    """Of the noise added; 0 at the last step."""


class Schedule:
    """A DDPM or DDIM scheduler with its timesteps set.

    Raises
    ------
    GradscopeError
        For what cannot be treated exactly: other schedulers, thresholding, learned variances, zero terminal SNR.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int) -> None:
        refuse_inexact(scheduler)
        config = scheduler.config
        if num_inference_steps > config.num_train_timesteps:
            raise GradscopeError(
                f"sampling.num_inference_steps: at most the scheduler's {config.num_train_timesteps}, "
                f"got {num_inference_steps}"
            )
        self.scheduler = type(scheduler).from_config(config)
        self.scheduler.set_timesteps(num_inference_steps)
        self.is_ddim = isinstance(scheduler, DDIMScheduler)
        self.clip_range: float | None = config.clip_sample_range if config.clip_sample else None
        self.times = [self._times(i) for i in range(len(self.scheduler.timesteps))]

    def _times(self, step: int) -> Times:
        scheduler, timesteps = self.scheduler, self.scheduler.timesteps
        t = int(timesteps[step])
        if self.is_ddim:
            previous, final = t - scheduler.config.num_train_timesteps // len(timesteps), scheduler.final_alpha_cumprod
        else:
            previous, final = int(timesteps[step + 1]) if step + 1 < len(timesteps) else -1, scheduler.one
        now = float(scheduler.alphas_cumprod[t])
        before = float(scheduler.alphas_cumprod[previous] if previous >= 0 else final)
        beta = 1 - now / before
        variance = beta * (1 - before) / (1 - now)
        large = not self.is_ddim and scheduler.variance_type.startswith("fixed_large")
        posterior = None if self.is_ddim else self._posterior(t, previous)
        return Times(step, t, now, variance**0.5, beta**0.5 if large else variance**0.5, posterior)

    def _posterior(self, t: int, previous: int) -> Posterior:
        """In the order of `DDPMScheduler.step`, so that rounding is the same."""
        scheduler = self.scheduler
        now = scheduler.alphas_cumprod[t]
        before = scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.one
        alpha = now / before
        beta = 1 - alpha
        variance = ((1 - before) / (1 - now) * beta).clamp(min=1e-20)
        sigma = {
            "fixed_small": lambda: variance**0.5,
            "fixed_small_log": lambda: (0.5 * variance.log()).exp(),
            "fixed_large": lambda: beta**0.5,
        }[scheduler.variance_type]()
        x_0, x_t = before**0.5 * beta / (1 - now), alpha**0.5 * (1 - before) / (1 - now)
        return Posterior(*map(float, (now**0.5, (1 - now) ** 0.5, x_0, x_t, sigma if t > 0 else 0)))

    def coordinates(self) -> dict[str, np.ndarray]:
        """`timestep`, `alphas_cumprod` and `sigma` of every step, each of shape ``(steps,)``."""
        return {
            name: np.array([getattr(times, name) for times in self.times])
            for name in ("timestep", "alphas_cumprod", "sigma")
        }

    def predict(self, native: Tensor, x_t: Tensor, times: Times) -> Prediction:
        """Epsilon and x0-hat from the denoiser's output (differentiable)."""
        signal, noise = times.alphas_cumprod**0.5, (1 - times.alphas_cumprod) ** 0.5
        match self.scheduler.config.prediction_type:
            case "epsilon":
                epsilon, x_0 = native, (x_t - noise * native) / signal
            case "sample":
                epsilon, x_0 = (x_t - signal * native) / noise, native
            case "v_prediction":
                epsilon, x_0 = signal * native + noise * x_t, signal * x_t - noise * native
        return Prediction(native, epsilon, self.clip(x_0))

    def original_sample(self, x_t: Tensor, epsilon: Tensor, times: Times) -> Tensor:
        """x0-hat of x_t for a given epsilon, clamped where the scheduler clips."""
        return self.clip((x_t - (1 - times.alphas_cumprod) ** 0.5 * epsilon) / times.alphas_cumprod**0.5)

    def clip(self, x_0: Tensor) -> Tensor:
        return x_0 if self.clip_range is None else x_0.clamp(-self.clip_range, self.clip_range)

    def adds_noise(self, times: Times) -> bool:
        return times.posterior is not None and times.timestep > 0

    def unguided(self, native: Tensor, x_t: Tensor, times: Times, noise: Tensor | None) -> Tensor:
        """The scheduler's prev_sample, to the bit, with this noise (DDPM; None where it adds none)."""
        posterior = times.posterior
        if posterior is None:
            return self.scheduler.step(native, times.timestep, x_t).prev_sample
        match self.scheduler.config.prediction_type:
            case "epsilon":
                x_0 = (x_t - posterior.noise * native) / posterior.signal
            case "sample":
                x_0 = native
            case "v_prediction":
                x_0 = posterior.signal * x_t - posterior.noise * native
        mean = posterior.x_0 * self.clip(x_0) + posterior.x_t * x_t
        return mean if noise is None else mean + posterior.sigma * noise

    def guided_ddim(self, prediction: Prediction, x_t: Tensor, times: Times, amount: Tensor) -> Tensor:
        """DDIM's prev_sample with ``epsilon - sqrt(1 - alphas_cumprod) * amount`` (algorithm 2 of arXiv 2105.05233)."""
        signal, noise = times.alphas_cumprod**0.5, (1 - times.alphas_cumprod) ** 0.5
        change = {"epsilon": -noise, "v_prediction": -noise / signal, "sample": noise**2 / signal}
        native = prediction.native + change[self.scheduler.config.prediction_type] * amount
        return self.scheduler.step(native, times.timestep, x_t).prev_sample


def refuse_inexact(scheduler: Any) -> None:
    """Raise GradscopeError, by name, for a scheduler that cannot be treated exactly."""
    name = type(scheduler).__name__
    if not isinstance(scheduler, DDPMScheduler | DDIMScheduler):
        raise GradscopeError(f"scheduler: {name} cannot be treated exactly; one of: DDPMScheduler, DDIMScheduler")
    config = scheduler.config
    if config.thresholding:
        raise GradscopeError(f"scheduler: {name} with thresholding=True is not supported; set it to False")
    variance_type = getattr(scheduler, "variance_type", VARIANCE_TYPES[0])
    if variance_type not in VARIANCE_TYPES:
        raise GradscopeError(
            f"scheduler: variance_type {variance_type!r} is not supported; {one_of(variance_type, VARIANCE_TYPES)}"
        )
    if config.prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise GradscopeError(f"scheduler: prediction_type {config.prediction_type!r} is not supported")
    if config.rescale_betas_zero_snr:
        raise GradscopeError("scheduler: rescale_betas_zero_snr leaves no x0-hat at the last timestep; set it to False")
