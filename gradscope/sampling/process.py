"""The arithmetic of a diffusers scheduler: predictions, posterior variance, and the unguided and guided step."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from diffusers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.models.schedulers import configuration_of, refuse_class

VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large")
_CLOSE = 100
"""Range of the search for a number of steps that fits, around the requested one."""


@dataclass(frozen=True)
class Prediction:
    """Predictions from a denoiser's output; tensors of shape ``(n, channel, height, width)``."""

    native: Tensor
    """The denoiser's output as the scheduler takes it (epsilon, x0 or v)."""
    model_output: Tensor
    """Epsilon."""
    pred_original_sample: Tensor
    """x0-hat, clamped where the scheduler clips."""


@dataclass(frozen=True)
class Times:
    """Constants of one sampling step."""

    step: int
    timestep: int
    alphas_cumprod: float
    sigma: float
    """Standard deviation of the DDPM posterior (equation 7 of arXiv 2006.11239); 0 at the last step."""
    sigma_step: float
    """Standard deviation of noise by DDPM's variance type: sigma, or sqrt(beta_t) for `fixed_large`."""
    noise_added: float
    """Standard deviation of the noise that the step adds; 0 where it adds none."""
    gain: float | None
    """Shift of prev_sample per unit of ``guidance_scale * weight * direction``. DDPM adds the unit to the posterior
    mean, so it is 1. DDIM changes epsilon, see `ddim_gain`. None where the shift is undefined."""
    posterior: "Posterior | None" = None
    """Constants of the posterior; None for DDIM."""


@dataclass(frozen=True)
class Posterior:
    """Constants of a DDPM step in float32, computed as in the scheduler."""

    signal: float
    """sqrt(alphas_cumprod)."""
    noise: float
    """sqrt(1 - alphas_cumprod)."""
    x_0: float
    """Coefficient of x_0 in the posterior mean (equation 7 of arXiv 2006.11239)."""
    x_t: float
    """Coefficient of x_t in the posterior mean."""
    sigma: float
    """Standard deviation of the added noise; 0 at the last step."""


class Schedule:
    """A DDPM or DDIM scheduler with its timesteps set.

    Parameters
    ----------
    scheduler
        A `DDPMScheduler` or `DDIMScheduler`; it is copied.
    num_inference_steps
        Number of steps, which the scheduler spaces.

    Raises
    ------
    GradscopeError
        The steps cannot be computed exactly: another scheduler, thresholding, learned variances, timesteps outside
        [0, T), a number of timesteps other than requested, or an epsilon prediction at signal 0.
    """

    def __init__(self, scheduler: Any, num_inference_steps: int) -> None:
        refuse_inexact(scheduler)
        config = scheduler.config
        self.scheduler = type(scheduler).from_config(config)
        _set_timesteps(self.scheduler, num_inference_steps)
        self.num_train_timesteps: int = config.num_train_timesteps
        self.is_ddim = isinstance(scheduler, DDIMScheduler)
        self.clip_range: float | None = config.clip_sample_range if config.clip_sample else None
        _refuse_betas(self.scheduler)
        self.times = [self._times(i) for i in range(len(self.scheduler.timesteps))]
        for times in self.times:
            if times.alphas_cumprod == 0 and config.prediction_type == "epsilon":
                raise GradscopeError(
                    f"scheduler: at timestep {times.timestep} alphas_cumprod is 0, where an epsilon prediction "
                    "does not determine x0; use prediction_type v_prediction or sample, timestep_spacing leading "
                    "(which does not visit this timestep), or rescale_betas_zero_snr False"
                )

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
        if self.is_ddim:
            return Times(step, t, now, variance**0.5, variance**0.5, 0.0, ddim_gain(now, before))
        large = scheduler.config.variance_type == "fixed_large"
        posterior = self._posterior(t, previous)
        # The scheduler clamps a variance of 0 to 1e-20, which adds no noise.
        noise_added = posterior.sigma if large or variance > 0 else 0.0
        sigma_step = beta**0.5 if large else variance**0.5
        return Times(step, t, now, variance**0.5, sigma_step, noise_added, 1.0, posterior)

    def _posterior(self, t: int, previous: int) -> Posterior:
        """The posterior in the order of `DDPMScheduler.step`, so that rounding is the same."""
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
        }[scheduler.config.variance_type]()
        x_0, x_t = before**0.5 * beta / (1 - now), alpha**0.5 * (1 - before) / (1 - now)
        return Posterior(*map(float, (now**0.5, (1 - now) ** 0.5, x_0, x_t, sigma if t > 0 else 0)))

    def coordinates(self) -> dict[str, np.ndarray]:
        """`timestep`, `alphas_cumprod` and `sigma` of every step, each of shape ``(steps,)``."""
        return {
            name: np.array([getattr(times, name) for times in self.times])
            for name in ("timestep", "alphas_cumprod", "sigma")
        }

    def predict(self, native: Tensor, x_t: Tensor, times: Times) -> Prediction:
        """Epsilon and x0-hat of the denoiser's output; differentiable."""
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
        """The scheduler's prev_sample, bit for bit. `noise` is DDPM's; None where the step adds none."""
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

    def configuration(self) -> dict[str, Any]:
        """See `configuration_of`."""
        return configuration_of(self.scheduler)


def ddim_gain(now: float, before: float, sigma: float = 0.0) -> float | None:
    """Shift of DDIM's step per unit of ``amount`` if epsilon becomes ``epsilon - sqrt(1 - now) * amount``.

    Algorithm 2 of arXiv 2105.05233: x0-hat gains ``(1 - now) / sqrt(now)``, and the direction to x_t loses
    ``sqrt(1 - now)``. Where the scheduler clips, x0-hat is clamped once, before guidance: a second clamp afterwards
    would turn the shift against the gradient.

    Parameters
    ----------
    now, before
        alphas_cumprod at this timestep and at the next one in sampling order, in [0, 1].
    sigma
        Standard deviation of the added noise; above 0 for eta above 0.

    Returns
    -------
    float or None
        Above 0. None at signal 0, where epsilon does not determine x0.
    """
    if now == 0:
        return None
    return before**0.5 * (1 - now) / now**0.5 - ((1 - before - sigma**2) * (1 - now)) ** 0.5


def refuse_inexact(scheduler: Any) -> None:
    """Raise GradscopeError, with the setting, for a scheduler whose steps cannot be computed exactly."""
    refuse_class(scheduler)
    config, name = scheduler.config, type(scheduler).__name__
    if config.thresholding:
        raise GradscopeError(f"scheduler: {name} with thresholding=True is not supported; set it to False")
    if isinstance(scheduler, DDPMScheduler) and config.variance_type not in VARIANCE_TYPES:
        raise GradscopeError(
            f"scheduler: variance_type {config.variance_type!r} is not supported; "
            f"{one_of(config.variance_type, VARIANCE_TYPES)}"
        )
    if config.prediction_type not in ("epsilon", "sample", "v_prediction"):
        raise GradscopeError(f"scheduler: prediction_type {config.prediction_type!r} is not supported")
    if len(scheduler.alphas_cumprod) != config.num_train_timesteps:
        raise GradscopeError(
            f"scheduler: num_train_timesteps is {config.num_train_timesteps}, but there are "
            f"{len(scheduler.alphas_cumprod)} betas; they must agree (trained_betas)"
        )


def _refuse_betas(scheduler: Any) -> None:
    """Raise GradscopeError unless alphas_cumprod fall over the timesteps, from below 1 to at least 0.

    At 1 there is no noise to predict, and a step without a fall has no posterior.
    """
    taken = scheduler.timesteps.tolist()
    values = [1.0, *(float(scheduler.alphas_cumprod[t]) for t in reversed(taken))]
    for t, before, now in zip(reversed(taken), values, values[1:], strict=False):
        if not 0 <= now < before <= 1:
            raise GradscopeError(
                f"scheduler: alphas_cumprod must fall from below 1 to at least 0; at timestep {t} it is {now:g}, "
                f"after {before:g} (betas must lie between 0 and 1)"
            )


def _set_timesteps(scheduler: Any, count: int) -> None:
    """Let the scheduler space `count` steps; refuse another number of steps and timesteps outside training's range."""
    last = scheduler.config.num_train_timesteps
    where = "sampling.num_inference_steps"
    count = whole_number(count, where, least=1)
    if count > last:
        raise GradscopeError(f"{where}: at most the scheduler's {last}, got {count}")
    if not (fault := _fault(scheduler, count)):
        return
    near = (count + sign * k for k in range(1, _CLOSE) for sign in (-1, 1))
    fits = next((n for n in near if 1 <= n <= last and not _fault(scheduler, n)), None)
    advice = f"; {fits} steps fit" if fits else ""
    spacing = f"timestep_spacing {scheduler.config.timestep_spacing!r}"
    offset = scheduler.config.steps_offset
    spacing += f" and steps_offset {offset}" if offset else ""
    raise GradscopeError(f"{where}: with {spacing}, {count} steps {fault}{advice}")


def _fault(scheduler: Any, count: int) -> str:
    """The fault of the scheduler's timesteps for `count` steps, in words; empty if there is none."""
    try:
        scheduler.set_timesteps(count)
    except ValueError as error:
        raise GradscopeError(f"scheduler: it cannot space {count} steps: {' '.join(str(error).split())}") from error
    timesteps, last = scheduler.timesteps.tolist(), scheduler.config.num_train_timesteps
    outside = [t for t in timesteps if not 0 <= t < last]
    if outside:
        return f"lead to timestep {outside[-1]}, outside [0, {last})"
    if len(timesteps) != count:
        return f"give {len(timesteps)} timesteps"
    if any(later >= earlier for earlier, later in zip(timesteps, timesteps[1:], strict=False)):
        return "do not descend"
    return ""
