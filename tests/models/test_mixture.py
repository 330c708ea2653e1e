"""The mixture's closed forms against autograd and scipy."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from gradscope.models import mixture


@pytest.mark.parametrize("timestep", [0, 250, 999])
def test_posterior_is_bayes_with_scipys_densities(timestep):
    unet, scheduler = mixture.denoiser()
    guide = mixture.classifier()
    x = torch.randn(3, *mixture.SHAPE, generator=torch.Generator().manual_seed(1))
    unet(x, torch.full((3,), timestep))
    got = guide(x).softmax(dim=1).double().numpy()
    alpha = float(scheduler.alphas_cumprod[timestep])
    means = unet.mixture.means.flatten(1).double().numpy() * alpha**0.5
    variance = alpha * mixture.STD**2 + 1 - alpha
    log_density = np.stack(
        [multivariate_normal(m, variance * np.eye(m.size)).logpdf(x.flatten(1).double().numpy()) for m in means], axis=1
    )
    wanted = np.exp(log_density - log_density.max(axis=1, keepdims=True))
    np.testing.assert_allclose(got, wanted / wanted.sum(axis=1, keepdims=True), rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("timestep", [0, 250, 999])
def test_epsilon_is_the_score_of_the_density(timestep):
    unet, scheduler = mixture.denoiser()
    alpha = float(scheduler.alphas_cumprod[timestep])
    x = torch.randn(2, *mixture.SHAPE, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    x.requires_grad_()
    means = unet.mixture.means.double() * alpha**0.5
    variance = alpha * mixture.STD**2 + 1 - alpha
    log_density = torch.logsumexp(-(x[:, None] - means).square().flatten(2).sum(dim=2) / (2 * variance), dim=1).sum()
    (score,) = torch.autograd.grad(log_density, x)
    got = unet(x.detach().float(), timestep)
    torch.testing.assert_close(got.double(), -((1 - alpha) ** 0.5) * score, rtol=1e-3, atol=1e-4)


def test_the_judge_sees_clean_images():
    means = mixture.denoiser()[0].mixture.means
    assert mixture.judge()(means).argmax(dim=1).tolist() == list(range(mixture.CLASSES))
