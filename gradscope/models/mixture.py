"""A noised Gaussian mixture, whose denoiser and guide are exact and in closed form.

Clean images of class k are N(mu_k, STD^2 I), so x_t given k is N(sqrt(alphas_cumprod) mu_k, s_t^2 I) with
s_t^2 = alphas_cumprod STD^2 + 1 - alphas_cumprod. Hence epsilon = -sqrt(1 - alphas_cumprod) * grad log p(x_t) and
p(y | x_t), at every timestep. Probes and signatures on this model show healthy guidance.

In a configuration: ``denoiser: gradscope.models.mixture:denoiser``, ``classifiers: {exact:
gradscope.models.mixture:classifier}``, ``judge: gradscope.models.mixture:judge``.
"""

from functools import cache
from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn

CLASSES, SHAPE, STD = 4, (3, 8, 8), 0.2


class Mixture(nn.Module):
    """Logits of the classes at a timestep: log N(x_t; sqrt(alphas_cumprod) mu_k, s_t^2 I) up to a constant."""

    means: Tensor
    alphas_cumprod: Tensor

    def __init__(self, alphas_cumprod: Tensor) -> None:
        super().__init__()
        patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(0))
        self.register_buffer("means", 0.4 * patterns)
        self.register_buffer("alphas_cumprod", alphas_cumprod)
        self.timestep = 0
        """Timestep of the denoiser's last call, which a sampler makes before it calls the guide."""

    def logits(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        variance = alphas_cumprod * STD**2 + 1 - alphas_cumprod
        distance = x[:, None] - alphas_cumprod**0.5 * self.means
        return -distance.square().flatten(2).sum(dim=2) / (2 * variance)

    def epsilon(self, x: Tensor, alphas_cumprod: Tensor) -> Tensor:
        """Expected noise in x, ``(n, *SHAPE)``."""
        share = self.logits(x, alphas_cumprod).softmax(dim=1)
        centre = alphas_cumprod**0.5 * torch.einsum("nk,kchw->nchw", share, self.means)
        variance = alphas_cumprod * STD**2 + 1 - alphas_cumprod
        return (1 - alphas_cumprod) ** 0.5 * (x - centre) / variance


class Denoiser(nn.Module):
    """The exact epsilon, in the form of a U-Net."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.device_mark = nn.Parameter(torch.zeros(1))
        self.config = SimpleNamespace(sample_size=SHAPE[1], in_channels=SHAPE[0], out_channels=SHAPE[0])

    def forward(self, x_t: Tensor, timestep: Tensor | int) -> Tensor:
        self.mixture.timestep = int(torch.as_tensor(timestep).flatten()[0])
        return self.mixture.epsilon(x_t, self.mixture.alphas_cumprod[self.mixture.timestep])


class Guide(nn.Module):
    """The exact p(y | x_t), at the timestep of the denoiser's last call."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, x_t: Tensor) -> Tensor:
        return self.mixture.logits(x_t, self.mixture.alphas_cumprod[self.mixture.timestep])


class Judge(Guide):
    """The exact p(y | x_0)."""

    def forward(self, x_0: Tensor) -> Tensor:
        return self.mixture.logits(x_0, 1.0)


def denoiser() -> tuple[Denoiser, DDPMScheduler]:
    """The denoiser and its scheduler."""
    return Denoiser(_shared()), _scheduler()


def classifier() -> Guide:
    return Guide(_shared())


def judge() -> Judge:
    return Judge(_shared())


def _scheduler() -> DDPMScheduler:
    return DDPMScheduler(clip_sample=False, timestep_spacing="trailing")


@cache
def _shared() -> Mixture:
    """The mixture that denoiser and guide share: the guide takes the timestep from the denoiser's call."""
    return Mixture(_scheduler().alphas_cumprod)
