"""The equations of guided-diffusion (arXiv 2105.05233), written down again, step by step in float64.

A denoiser with a learned range of variances (arXiv 2102.09672), a classifier f(x, t), and the gradient without
normalisation. At the last step the posterior's variance is 0; guided-diffusion takes that of the step before. No noise
is added there, but `weight: variance` scales the shift.
"""

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from solvers import SHAPE, Classifier, Denoiser, float64, own_generators

from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler

LABELS, SEED, SCALE = [2, 0], 11, 3.0


class NoiseAware(Classifier):
    def forward(self, x, timesteps):
        return super().forward(x) * (2 + torch.cos(timesteps[:, None] / 400))


class Chain:
    """A diffusion of the betas that lie between the visited timesteps of a linear schedule."""

    def __init__(self, visited):
        share = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[visited]
        self.visited = visited
        self.share, self.before = share, np.append(1.0, share[:-1])
        self.beta = 1 - self.share / self.before
        posterior = self.beta * (1 - self.before) / (1 - self.share)
        self.log_small = np.log(np.append(posterior[1], posterior[1:]))

    def predicted(self, denoiser, x, k, clips):
        """x0-hat, the posterior's mean, and the logarithm of the variance of every element."""
        epsilon, mixed = denoiser(x, torch.full((len(x),), self.visited[k])).chunk(2, dim=1)
        a, b, beta = self.share[k], self.before[k], self.beta[k]
        x_0 = (x - (1 - a) ** 0.5 * epsilon) / a**0.5
        x_0 = x_0.clamp(-1, 1) if clips else x_0
        mean = (b**0.5 * beta * x_0 + (1 - beta) ** 0.5 * (1 - b) * x) / (1 - a)
        weight = (1 + mixed) / 2
        return x_0, mean, weight * np.log(beta) + (1 - weight) * self.log_small[k]

    def pull(self, classifier, x, k):
        """The scaled gradient of log p(y | x, t)."""
        leaf = x.clone().requires_grad_()
        log_p = classifier(leaf, torch.full((len(x),), self.visited[k])).log_softmax(dim=1)
        return SCALE * torch.autograd.grad(log_p[range(len(x)), LABELS].sum(), leaf)[0]

    def ddim(self, x_0, x, k, eta, noise):
        """Equation 12 of arXiv 2010.02502, with the epsilon that belongs to x0-hat."""
        a, b = self.share[k], self.before[k]
        sigma = eta * ((1 - b) / (1 - a) * (1 - a / b)) ** 0.5
        epsilon = (x - a**0.5 * x_0) / (1 - a) ** 0.5
        return b**0.5 * x_0 + (1 - b - sigma**2) ** 0.5 * epsilon + sigma * noise


SPACINGS = [("leading", 20, range(0, 1000, 50)), ("linspace", 10, range(0, 1000, 111))]


def run(scheduler, steps, weight="one", **options):
    guidance = ClassifierGuidance(NoiseAware(), guidance_scale=SCALE, normalize="none", weight=weight)
    sampler = GuidedSampler(Denoiser(out_channels=6), scheduler, guidance, **options)
    return list(sampler.steps(LABELS, steps, seed=SEED))


def drawing():
    """The noise of two samples, draw by draw."""
    generators = own_generators(SEED, 2)
    return lambda: torch.stack([torch.randn(SHAPE, generator=own) for own in generators])


def same(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("spacing", "steps", "visited"), SPACINGS)
@pytest.mark.parametrize("clips", [True, False])
def test_ddpm_with_learned_variances_is_guided_diffusions(spacing, steps, visited, clips):
    draw = drawing()
    with float64(), torch.no_grad():
        scheduler = DDPMScheduler(variance_type="learned_range", clip_sample=clips, timestep_spacing=spacing)
        got = run(scheduler, steps, "variance")
        chain, denoiser, classifier, x = Chain(visited), Denoiser(out_channels=6), NoiseAware(), draw()
        for k, step in zip(reversed(range(steps)), got, strict=True):
            assert step.timestep == visited[k]
            x_0, mean, log_variance = chain.predicted(denoiser, x, k, clips)
            with torch.enable_grad():
                shift = chain.pull(classifier, x, k)
            noise = draw() if k else torch.zeros_like(x)
            same(step.x_t, x)
            same(step.pred_original_sample, x_0)
            deviation = (log_variance / 2).exp()
            same(step.noise_added, (k > 0) * deviation.square().flatten(1).mean(dim=1).sqrt())
            shift = log_variance.exp() * shift
            same(step.shift, shift)
            x = mean + shift + (k > 0) * deviation * noise
            same(step.prev_sample, x)


@pytest.mark.parametrize("clips", [True, False])
@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_is_guided_diffusions(clips, eta):
    """guided-diffusion derives epsilon from the clamped x0-hat, as use_clipped_model_output does."""
    spacing, steps, visited = SPACINGS[0]
    draw = drawing()
    with float64(), torch.no_grad():
        scheduler = DDIMScheduler(clip_sample=clips, timestep_spacing=spacing)
        got = run(scheduler, steps, eta=eta, use_clipped_model_output=True)
        chain, denoiser, classifier, x = Chain(visited), Denoiser(out_channels=6), NoiseAware(), draw()
        for k, step in zip(reversed(range(steps)), got, strict=True):
            a = chain.share[k]
            x_0 = chain.predicted(denoiser, x, k, clips)[0]
            with torch.enable_grad():
                pull = chain.pull(classifier, x, k)
            noise = draw() if eta else torch.zeros_like(x)
            moved = x_0 + (1 - a) / a**0.5 * pull  # of epsilon - sqrt(1 - a) pull
            same(step.pred_original_sample, x_0)
            expected = chain.ddim(moved, x, k, eta, noise)
            same(step.shift, expected - chain.ddim(x_0, x, k, eta, noise))
            same(step.prev_sample, expected)
            x = expected
