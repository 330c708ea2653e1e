"""Noised Gaussian mixtures, whose denoisers and guides are exact and in closed form, for samples of any shape.

A clean sample of class k is one of the class's components, N(mu_j, C) with a covariance C that all share. With
a = alphas_cumprod, x_t of component j is N(sqrt(a) mu_j, a C + (1 - a) I). Hence
epsilon = -sqrt(1 - a) * grad log p(x_t) and p(y | x_t), at every noise level. Any other process
x_t = signal x_0 + noise epsilon is this one times sqrt(signal^2 + noise^2).

This module's own example has images of four classes. In a configuration: ``denoiser:
gradscope.models.mixture:denoiser``, ``classifiers: {exact: gradscope.models.mixture:classifier}``, ``judge:
gradscope.models.mixture:judge``. Probes and signatures on it show healthy guidance. `gradscope.models.examples` has
points, trajectories and signals.
"""

from collections.abc import Callable
from types import SimpleNamespace

import torch
from diffusers import DDPMScheduler
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

CLASSES, SHAPE, STD = 4, (3, 8, 8), 0.2
_LEAST = -300.0
"""Smallest logarithm of 1 - p_y in a gradient. In float32 it is 0 below -103."""


class Mixture(nn.Module):
    """Classes of Gaussian components, all equally likely.

    Parameters
    ----------
    means
        ``(classes, components, *sample)``.
    spread
        Standard deviation of every element, or the covariance of a flattened sample, ``(elements, elements)``.

    Examples
    --------
    >>> mixture = Mixture(torch.tensor([[[-1.0]], [[1.0]]]), 0.1)  # two numbers, one component each
    >>> mixture.logits(torch.tensor([[0.5]]), 1.0).softmax(dim=1).round()
    tensor([[0., 1.]])
    """

    means: Tensor
    basis: Tensor | None
    """Eigenvectors of the covariance, as columns; None if it is a multiple of the identity."""
    variances: Tensor
    """Its eigenvalues, ``(elements,)``; the only one, ``()``, without a basis."""

    def __init__(self, means: Tensor, spread: float | Tensor) -> None:
        super().__init__()
        self.classes, self.shape = len(means), tuple(means.shape[2:])
        self.register_buffer("means", means.flatten(0, 1))
        if isinstance(spread, Tensor):
            variances, basis = torch.linalg.eigh(spread.double())
            self.register_buffer("variances", variances.clamp(min=0).to(means))
            self.register_buffer("basis", basis.to(means))
        else:
            self.register_buffer("variances", torch.tensor(spread**2, dtype=means.dtype))
            self.register_buffer("basis", None)

    def logits(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        """Logits of the classes, ``(n, classes)``: log p(x_t | class) up to a constant.

        Parameters
        ----------
        x
            Noisy samples ``(n, *sample)``, signal and noise having squares that sum to 1.
        alphas_cumprod
            The square of the signal's factor, one number or ``(n,)``; 1 for clean samples.
        """
        return self._components(x, alphas_cumprod).unflatten(1, (self.classes, -1)).logsumexp(dim=2)

    def epsilon(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        """Expected noise in x, ``(n, *sample)``; parameters as in `logits`."""
        share = self._components(x, alphas_cumprod).softmax(dim=1)
        a = _aligned(alphas_cumprod, x)
        centre = a**0.5 * torch.einsum("nk,k...->n...", share, self.means)
        return self._solved((1 - a) ** 0.5 * (x - centre), a)

    def gradient(self, x: Tensor, label: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        """Gradient of log p(y | x_t) with respect to x_t, ``(n, *sample)``; parameters as in `logits`.

        With the means of the components of class y, and of all others, each weighted by its share at x_t::

            (1 - p_y) sqrt(a) (a C + (1 - a) I)^-1 (mean_y - mean_others)

        It stays exact where p_y rounds to 1, and 1 - p_y counts as e^-300 below that, as in guidance.

        Parameters
        ----------
        label
            The classes y, ``(n,)``, int64.
        """
        logits = self._components(x, alphas_cumprod)
        each = len(self.means) // self.classes
        own = torch.arange(len(self.means), device=x.device) // each == label[:, None]
        ours, others = (logits.where(mask, -torch.inf) for mask in (own, ~own))
        share = ours.softmax(dim=1) - others.softmax(dim=1)
        doubt = logsigmoid(others.logsumexp(dim=1) - ours.logsumexp(dim=1)).clamp(min=_LEAST).exp()
        a = _aligned(alphas_cumprod, x)
        towards = torch.einsum("nk,k...->n...", doubt[:, None] * share, self.means)
        return self._solved(a**0.5 * towards, a)

    def draw(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Clean samples of the classes ``label``, ``(n, *sample)``."""
        each = len(self.means) // self.classes
        component = label * each + torch.randint(each, label.shape, generator=generator)
        noise = torch.randn(len(label), *self.shape, generator=generator).to(self.means)
        spread = noise.flatten(1) * self.variances.sqrt()
        return self.means[component] + (spread if self.basis is None else spread @ self.basis.T).view_as(noise)

    def _components(self, x: Tensor, alphas_cumprod: Tensor | float) -> Tensor:
        """Logarithm of N(x; sqrt(a) mu_j, a C + (1 - a) I) up to a constant, ``(n, classes * components)``."""
        a = _aligned(alphas_cumprod, x[:, None])
        distance = (x[:, None] - a**0.5 * self.means).flatten(2)
        if self.basis is None:
            return -distance.square().sum(dim=2) / (2 * self._variance(a.flatten(1)))
        return -((distance @ self.basis).square() / (2 * self._variance(a.flatten(2)))).sum(dim=2)

    def _solved(self, x: Tensor, a: Tensor) -> Tensor:
        """``(a C + (1 - a) I)^-1 x``."""
        if self.basis is None:
            return x / self._variance(a)
        return (x.flatten(1) @ self.basis / self._variance(a.flatten(1)) @ self.basis.T).view_as(x)

    def _variance(self, a: Tensor) -> Tensor:
        """Eigenvalues of ``a C + (1 - a) I``, or the only one."""
        return a * self.variances + 1 - a


class Denoiser(nn.Module):
    """The exact epsilon, called as ``unet(x_t, t)``.

    Parameters
    ----------
    mixture
        The data.
    alphas_cumprod
        By timestep. At one between two of them, as solvers in sigma visit, sigma is interpolated as diffusers does.
    """

    alphas_cumprod: Tensor

    def __init__(self, mixture: Mixture, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.mixture = mixture
        self.device_mark = nn.Parameter(torch.zeros(1))
        self.register_buffer("alphas_cumprod", alphas_cumprod)
        self.config = SimpleNamespace(sample_shape=mixture.shape)

    def forward(self, x_t: Tensor, timestep: Tensor | float) -> Tensor:
        return self.mixture.epsilon(x_t, share_at(self.alphas_cumprod, timestep))


class NoiseAware(nn.Module):
    """Logits of the exact p(y | x_t), a classifier f(x, t)."""

    alphas_cumprod: Tensor

    def __init__(self, mixture: Mixture, alphas_cumprod: Tensor) -> None:
        super().__init__()
        self.mixture = mixture
        self.register_buffer("alphas_cumprod", alphas_cumprod)

    def forward(self, x_t: Tensor, timestep: Tensor | float) -> Tensor:
        return self.mixture.logits(x_t, share_at(self.alphas_cumprod, timestep))


class Clean(nn.Module):
    """Logits of the exact p(y | x_0), which knows no noise."""

    def __init__(self, mixture: Mixture) -> None:
        super().__init__()
        self.mixture = mixture

    def forward(self, x_0: Tensor) -> Tensor:
        return self.mixture.logits(x_0, 1.0)


def share_at(alphas_cumprod: Tensor, timestep: Tensor | float) -> Tensor:
    """alphas_cumprod at timesteps that need not be whole; sigma is linear between whole ones."""
    t = torch.as_tensor(timestep, device=alphas_cumprod.device)
    if not t.is_floating_point():
        return alphas_cumprod[t]
    low = t.floor().long()
    sigmas = ((1 - alphas_cumprod) / alphas_cumprod) ** 0.5
    sigma = torch.lerp(sigmas[low], sigmas[(low + 1).clamp(max=len(sigmas) - 1)], (t - low).to(sigmas))
    return torch.where(t == low, alphas_cumprod[low], 1 / (1 + sigma**2))


def _aligned(alphas_cumprod: Tensor | float, x: Tensor) -> Tensor:
    """One number per sample in the shape that broadcasts over x."""
    a = torch.as_tensor(alphas_cumprod, dtype=x.dtype, device=x.device)
    return a.reshape(-1, *[1] * (x.ndim - 1))


def scheduler() -> DDPMScheduler:
    """The noise of all exact examples: nothing is clipped, and sampling starts at the last timestep."""
    return DDPMScheduler(clip_sample=False, timestep_spacing="trailing")


def denoiser_of(mixture: Mixture) -> tuple[Denoiser, DDPMScheduler]:
    """The exact denoiser of a mixture, and its scheduler."""
    noise = scheduler()
    return Denoiser(mixture, noise.alphas_cumprod), noise


def noise_aware(mixture: Mixture) -> NoiseAware:
    """The exact guide of a mixture's noisy samples."""
    return NoiseAware(mixture, scheduler().alphas_cumprod)


def models_of(
    data: Callable[[], Mixture],
) -> tuple[Callable[[], tuple[Denoiser, DDPMScheduler]], Callable[[], NoiseAware], Callable[[], Clean]]:
    """What a configuration names of an example: its exact denoiser, its guide of noisy samples, and of clean ones."""
    return lambda: denoiser_of(data()), lambda: noise_aware(data()), lambda: Clean(data())


def images() -> Mixture:
    """Images of four classes, each a pattern of its own."""
    patterns = torch.randn(CLASSES, *SHAPE, generator=torch.Generator().manual_seed(0))
    return Mixture(0.4 * patterns[:, None], STD)


denoiser, classifier, judge = models_of(images)
