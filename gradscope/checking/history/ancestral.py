"""What loops over the tables of a DDPM share: a posterior whose mean is shifted, and noise."""

from typing import Any

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from gradscope.checking.history.loop import Loop
from gradscope.checking.history.networks import Denoiser, Time
from gradscope.checking.history.tables import Tables


class Ancestral(Loop):
    """x_{t-1} = mean(x_t, x0-hat) + scale * variance * gradient + sigma * noise."""

    def build(self, generator: torch.Generator) -> None:
        self.tables = Tables(self.steps)
        self.timesteps: list[Any] = self.tables.timesteps
        self.scheduler = DDPMScheduler(prediction_type=_DIFFUSERS[self.prediction], clip_sample=self.clamp)
        self.scheduler.set_timesteps(timesteps=self.timesteps)
        self.denoiser = Denoiser(self.shape, self.tables.levels, self.prediction, generator)

    def levels(self, t: Time) -> tuple[float, float]:
        return self.tables.levels(t)

    def unguided(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        of_clean, of_noisy = self.tables.coefficients(t)
        return of_clean * self.right.clean(x, t) + of_noisy * x, self.tables.variance(t) ** 0.5 * self.noises[float(t)]

    def weight(self, t: Time) -> float:
        return self.tables.variance(t)

    def sigma(self, t: Time) -> float:
        return self.tables.variance(t) ** 0.5


class ThroughEpsilon(Ancestral):
    """Epsilon loses noise * scale * gradient, so x0-hat, which was clamped before, gains noise^2 / signal times it."""

    def weight(self, t: Time) -> float:
        signal, noise = self.levels(t)
        return self.tables.coefficients(t)[0] * noise**2 / signal

    def sigma(self, t: Time) -> float:
        return self.levels(t)[1]

    def moved(self, mean: Tensor, direction: Tensor, x: Tensor, t: Time) -> Tensor:
        signal, noise = self.levels(t)
        of_clean, of_noisy = self.tables.coefficients(t)
        x_0 = self.right.clean(x, t) + self.scale * noise**2 / signal * direction
        return of_clean * self.guided_clean(x_0) + of_noisy * x

    def guided_clean(self, x_0: Tensor) -> Tensor:
        """The predicted clean sample after guidance, which is not clamped again."""
        return x_0


_DIFFUSERS = {"epsilon": "epsilon", "v": "v_prediction", "sample": "sample"}
