"""Classifier guidance at the noisy sample, in the style of guided-diffusion."""

import torch
from torch import Tensor

from gradscope.checking.history.ancestral import Ancestral
from gradscope.checking.history.networks import Network, Time


class Classifier(Ancestral):
    """A noise-aware classifier f(x, t): the mean of the next sample is shifted by variance * gradient."""

    name = "classifier"
    style = "guided-diffusion"
    shape = (2, 4, 4)
    classes = 5

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.guide = Network(32, self.classes, generator, gain=1e-7 if self.faint else 1.0)
        self.labels = torch.randint(self.classes, (self.n,), generator=generator)

    def score(self, seen: Tensor, t: Time, target: Tensor) -> Tensor:
        return self.objective(self.guide(seen, t), target)
