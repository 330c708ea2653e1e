"""A guide of returns over noisy trajectories, in the style of diffuser."""

import torch
from torch import Tensor

from gradscope.checking.history.ancestral import Ancestral
from gradscope.checking.history.networks import Network, Time


class Planner(Ancestral):
    """A value function J(x, t) of several goals; the denoiser predicts the clean plan, whose first state is given."""

    name = "planner"
    style = "diffuser"
    shape = (6, 3)
    prediction = "sample"
    classes = 4

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.guide = Network(18, self.classes, generator, gain=1e-7 if self.faint else 1.0)
        self.labels = torch.randint(self.classes, (self.n,), generator=generator)
        self.first = torch.randn(self.n, 3, generator=generator).to(self.dtype)

    def score(self, seen: Tensor, t: Time, target: Tensor) -> Tensor:
        return self.guide(seen, t)[range(self.n), target]

    def step(self, x: Tensor, t: Time) -> Tensor:
        following = super().step(x, t)
        following[:, 0] = self.first
        return following
