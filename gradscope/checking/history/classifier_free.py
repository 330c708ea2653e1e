"""Classifier-free guidance with exact denoisers of a mixture, whose implied classifier is known in closed form."""

import torch
from torch import Tensor, nn

from gradscope.checking.history.ancestral import ThroughEpsilon
from gradscope.checking.history.networks import Levels, Time, for_each
from gradscope.models.mixture import Mixture


class Conditional(nn.Module):
    """Epsilon given a class, ``denoiser(x, t, label)``, or without any, ``denoiser(x, t)``."""

    def __init__(self, means: Tensor, spread: float, levels: Levels) -> None:
        super().__init__()
        self.of_all = Mixture(means, spread)
        self.of_each = [Mixture(means[k : k + 1], spread) for k in range(len(means))]
        self.parts = nn.ModuleList(self.of_each)  # so that .to() reaches them
        self.levels = levels

    def forward(self, x: Tensor, t: Time, label: Tensor | None = None) -> Tensor:
        square = for_each(self.levels, t, x)[0] ** 2
        if label is None:
            return self.of_all.epsilon(x, square)
        return torch.stack([mixture.epsilon(x, square) for mixture in self.of_each])[label, range(len(x))]


class Implied(nn.Module):
    """Logits of the exact p(y | x_t), the classifier that classifier-free guidance implies."""

    def __init__(self, mixture: Mixture, levels: Levels) -> None:
        super().__init__()
        self.mixture, self.levels = mixture, levels

    def forward(self, x: Tensor, t: Time) -> Tensor:
        return self.mixture.logits(x, for_each(self.levels, t, x)[0] ** 2)


class ClassifierFree(ThroughEpsilon):
    """epsilon = u + scale (c - u), whose gradient is -(c - u) / noise."""

    name = "classifier_free"
    style = "diffusers, labmlai, DiffGui"
    shape = (4, 3)
    classes = 4

    def build(self, generator: torch.Generator) -> None:
        self.clamp = False
        super().build(generator)
        common = torch.randn(1, 1, *self.shape, generator=generator, dtype=torch.float64)
        own = torch.randn(self.classes, 2, *self.shape, generator=generator, dtype=torch.float64)
        self.denoiser = Conditional(common + (1e-7 if self.faint else 0.5) * own, 1.0, self.levels)
        self.guide = Implied(self.denoiser.of_all, self.levels)
        self.labels = torch.randint(self.classes, (self.n,), generator=generator)

    def score(self, seen: Tensor, t: Time, target: Tensor) -> Tensor:
        return self.objective(self.guide(seen, t), target)

    def pair(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The conditional and the unconditional prediction."""
        return self.denoiser(x, t, self.target()), self.output(x, t)

    def gradient(self, x: Tensor, t: Time) -> Tensor:
        timestep = self.time(t)
        conditional, unconditional = self.pair(self.where(x, t), timestep)
        return self.scaled(-(conditional - unconditional) / self.levels(timestep)[1], t)
