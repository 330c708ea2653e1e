"""A denoiser that is exact for Gaussian data, guides that are linear in the sample, and loops written by hand."""

from types import SimpleNamespace

import torch
from torch import nn

from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.sampling.guidance.measurement import Measurement
from gradscope.sampling.noise import own_noise
from gradscope.sampling.seeds import sample_seeds

D, N = 6, 3
TARGET = torch.tensor([[1.0, -0.5], [0.3, 0.8], [-1.2, 0.1]], dtype=torch.float64)
"""Measurements of the samples."""


class GaussianDenoiser(nn.Module):
    """The noise that is expected of x_t for data N(mean, variance), each ``(D,)``, under DDPM's alphas_cumprod."""

    config = SimpleNamespace(sample_shape=(D,))

    def __init__(self, variance=1.0):
        super().__init__()
        self.mean = nn.Parameter(torch.linspace(-0.5, 0.7, D, dtype=torch.float64))
        self.variance = nn.Parameter(torch.full((D,), float(variance), dtype=torch.float64))
        shares = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float32), 0).double()
        self.register_buffer("shares", shares)

    def forward(self, x, t):
        share = self.shares[t.long()][:, None]
        return (1 - share).sqrt() * (x - share.sqrt() * self.mean) / (share * self.variance + 1 - share)


class Logits(nn.Module):
    """A linear classifier of samples ``(n, D)``, of three classes unless `gain` is small a convinced one."""

    def __init__(self, gain=1.0):
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(D, 3)
        with torch.no_grad():
            self.linear.weight.mul_(gain)

    def forward(self, x):
        return self.linear(x)


def matrix(rows=2):
    """A measurement's operator as a matrix, ``(rows, D)``."""
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def measured(x_0):
    return x_0 @ matrix().T


class Measured(nn.Module):
    """`measured` as a module, for hooks."""

    def forward(self, x_0):
        return measured(x_0)


def measurement(noise_std=1.0):
    return Measurement(measured, TARGET, noise_std)


def sampler_of(method, scheduler, guide, kind="x0", scale=0.3, denoiser=None, **settings):
    """A sampler that normalises nothing, unless `settings` say so."""
    given = {"normalize": "none"} | {key: settings.pop(key) for key in ("normalize", "objective") if key in settings}
    guidance = ClassifierGuidance(guide, kind, scale, method=method, **given)
    return GuidedSampler(GaussianDenoiser() if denoiser is None else denoiser, scheduler, guidance, **settings)


def steps_of(method, scheduler, guide, kind="x0", count=6, **settings):
    return list(sampler_of(method, scheduler, guide, kind, **settings).steps([0, 1, 2], count, seed=4))


class HandLoop:
    """The noise of a block of samples, and a scheduler of diffusers, for loops that are written by hand."""

    def __init__(self, scheduler, count=6, denoiser=None):
        self.seeds = sample_seeds(4, range(N)).tolist()
        self.generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]
        self.scheduler = type(scheduler).from_config(scheduler.config)
        self.scheduler.set_timesteps(count)
        self.denoiser = GaussianDenoiser() if denoiser is None else denoiser
        self.x_t = torch.stack([torch.randn(D, generator=g) for g in self.generators])

    def epsilon(self, x, t):
        """The denoiser's output, with a graph, and without gradients of its weights."""
        return self.denoiser(x, t.expand(len(x)))

    def share(self, t):
        return float(self.scheduler.alphas_cumprod[int(t)])

    def before(self, i):
        """alphas_cumprod after step i."""
        steps = self.scheduler.timesteps
        return self.share(steps[i + 1]) if i + 1 < len(steps) else 1.0

    def step(self, epsilon, t, x, **options):
        if "generator" not in options:
            options["generator"] = self.generators
        return self.scheduler.step(epsilon.detach(), t, x.detach(), **options).prev_sample

    def renoised(self, prev, i, repeat):
        """x_t by the forward process from the noise level after step i."""
        share, before = self.share(self.scheduler.timesteps[i]), self.before(i)
        noise = own_noise(self.seeds, (i, repeat, 2**20), prev)
        return (share / before) ** 0.5 * prev + (1 - share / before) ** 0.5 * noise

    def draws(self, like, i, repeat, count):
        """The methods' own noise, ``(count, n, D)``."""
        return torch.stack([own_noise(self.seeds, (i, repeat, draw), like) for draw in range(count)])


def log_prob(guide, x, label=(0, 1, 2)):
    """Log p of the labels, by log_softmax."""
    return guide(x).log_softmax(dim=1)[range(len(label)), list(label)]


def close(found, expected, rtol=1e-10, atol=1e-12):
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol)
