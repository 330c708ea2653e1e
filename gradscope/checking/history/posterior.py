"""A measurement at the predicted clean sample, through the denoiser, in the style of DPS and universal guidance."""

import torch
from torch import Tensor, nn

from gradscope.checking.history.ancestral import ThroughEpsilon
from gradscope.checking.history.networks import Time


class Measurement(nn.Module):
    """log p(y | x_0) = -|A x_0 - y|^2 / (2 std^2) of a known linear operator, such as a blur or a mask."""

    operator: Tensor
    measured: Tensor

    def __init__(self, elements: int, n: int, std: float, generator: torch.Generator) -> None:
        super().__init__()
        self.register_buffer("operator", torch.randn(elements // 2, elements, generator=generator) / elements**0.5)
        self.register_buffer("measured", torch.randn(n, elements // 2, generator=generator))
        self.std = std

    def forward(self, x_0: Tensor) -> Tensor:
        residual = x_0.flatten(1) @ self.operator.T - self.measured
        return -residual.square().sum(dim=1) / (2 * self.std**2)


class Posterior(ThroughEpsilon):
    """The denoiser runs inside of the gradient, which is subtracted from epsilon."""

    name = "posterior"
    style = "DPS, Universal-Guided-Diffusion"
    shape = (2, 4, 4)
    through_denoiser = True
    scale = 0.3

    def build(self, generator: torch.Generator) -> None:
        super().build(generator)
        self.guide = Measurement(32, self.n, 3e3 if self.faint else 1.0, generator)

    def score(self, seen: Tensor, t: Time, target: object) -> Tensor:
        return self.guide(seen)
