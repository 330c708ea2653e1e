"""A plan that must join the one before it, through a flow's velocity, in the style of real-time chunking."""

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from gradscope.checking.history.loop import Loop
from gradscope.checking.history.networks import Denoiser, Time


class Join(nn.Module):
    """-|x_0 - plan|^2 / 2, with weights that fall along the plan."""

    plan: Tensor
    weights: Tensor

    def __init__(self, shape: tuple[int, ...], n: int, weight: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("plan", torch.randn(n, *shape, generator=generator))
        self.register_buffer("weights", weight * torch.linspace(1, 0, shape[0] + 1)[:-1, None])

    def forward(self, x_0: Tensor) -> Tensor:
        return -(self.weights * (x_0 - self.plan).square()).flatten(1).sum(dim=1) / 2


class Chunking(Loop):
    """x_t = (1 - s) x_0 + s noise with s = t / 1000; the velocity noise - x_0 loses weight * gradient."""

    name = "chunking"
    style = "real-time chunking, lerobot"
    shape = (6, 3)
    prediction = "flow"
    through_denoiser = True

    def build(self, generator: torch.Generator) -> None:
        self.clamp = False
        self.scheduler = FlowMatchEulerDiscreteScheduler()
        self.scheduler.set_timesteps(self.steps)
        self.timesteps: list[Any] = self.scheduler.timesteps.tolist()
        self.denoiser = Denoiser(self.shape, self.levels, self.prediction, generator)
        self.guide = Join(self.shape, self.n, 1e-7 if self.faint else 1.0, generator)

    def levels(self, t: Time) -> tuple[float, float]:
        return 1 - float(t) / 1000, float(t) / 1000

    def score(self, seen: Tensor, t: Time, target: object) -> Tensor:
        return self.guide(seen)

    def unguided(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        return x + self._moved_by(t) * self.denoiser(x, t), torch.zeros_like(x)

    def weight(self, t: Time) -> float:
        """Of the gradient in the velocity, at most 5, times the step."""
        signal, noise = self.levels(t)
        return -self._moved_by(t) * min(5.0, (signal**2 + noise**2) / max(noise * signal, 1e-9))

    def sigma(self, t: Time) -> float:
        return self.levels(t)[1]

    def _moved_by(self, t: Time) -> float:
        """The change of s in one step, below 0."""
        place = self.timesteps.index(float(t)) + 1
        return (self.timesteps[place] if place < len(self.timesteps) else 0.0) / 1000 - float(t) / 1000
