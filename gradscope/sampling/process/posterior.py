"""The posterior of DDPM (equation 7 of arXiv 2006.11239), with fixed or learned variances."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

LEARNED = ("learned", "learned_range")
VARIANCE_TYPES = ("fixed_small", "fixed_small_log", "fixed_large", *LEARNED)


@dataclass(frozen=True)
class Posterior:
    """Constants of a DDPM step in float32, computed as in `DDPMScheduler.step`, so that rounding is the same."""

    signal: float
    """sqrt(alphas_cumprod)."""
    noise: float
    """sqrt(1 - alphas_cumprod)."""
    x_0: float
    """Coefficient of x_0 in the posterior mean."""
    x_t: float
    """Coefficient of x_t in the posterior mean."""
    sigma: float
    """Standard deviation of the added noise if it is fixed; 0 at the last step."""
    log_least: float
    """Logarithm of the posterior's variance. At the last step, where that is 0, it is the variance of the step before,
    as in guided-diffusion: the step adds no noise, but ``weight: variance`` needs a variance."""
    log_largest: float
    """Logarithm of beta_t."""

    def spread(self, variance: Tensor, variance_type: str) -> Tensor:
        """Standard deviation of each element, ``(n, *sample)``, of the denoiser's prediction of the variance.

        `learned` predicts the variance itself; `learned_range` a number in [-1, 1] between the logarithms of the
        posterior's variance and of beta_t (equation 15 of arXiv 2102.09672).
        """
        if variance_type == "learned":
            return variance**0.5
        share = (variance + 1) / 2
        return torch.exp(0.5 * (share * self.log_largest + (1 - share) * self.log_least))


def posterior(scheduler: Any, t: int, previous: int, above: "Posterior | None") -> Posterior:
    """The constants at timestep t.

    Parameters
    ----------
    scheduler
        A `DDPMScheduler`.
    t, previous
        The timestep, and the next one in sampling order, below 0 after the last.
    above
        The constants at the timestep before in sampling order; None at the first.
    """
    now = scheduler.alphas_cumprod[t]
    before = scheduler.alphas_cumprod[previous] if previous >= 0 else scheduler.one
    alpha = now / before
    beta = 1 - alpha
    variance = ((1 - before) / (1 - now) * beta).clamp(min=1e-20)
    kind = scheduler.config.variance_type
    sigma = {
        "fixed_small": lambda: variance**0.5,
        "fixed_small_log": lambda: (0.5 * variance.log()).exp(),
        "fixed_large": lambda: beta**0.5,
    }.get(kind, lambda: variance**0.5)()
    x_0, x_t = before**0.5 * beta / (1 - now), alpha**0.5 * (1 - before) / (1 - now)
    values = (now**0.5, (1 - now) ** 0.5, x_0, x_t, sigma if t > 0 else 0, variance.log(), beta.log())
    found = Posterior(*map(float, values))
    return found if previous >= 0 or above is None else replace(found, log_least=above.log_least)


def learns_variance(scheduler: Any) -> bool:
    """Whether a scheduler takes its variance from the denoiser; solvers other than DDPM drop it."""
    return isinstance(scheduler, DDPMScheduler) and scheduler.config.variance_type in LEARNED
