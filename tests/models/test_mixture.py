"""The mixtures' closed forms against autograd, scipy and draws, for samples of every kind and every process."""

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from scipy.stats import multivariate_normal

from gradscope.models import mixture
from gradscope.models.examples import points, signals, trajectories
from gradscope.models.mixture import Clean, Denoiser, Mixture, NoiseAware, share_at
from gradscope.sampling.process import Level, Schedule

KINDS = {"images": mixture.images, "points": points.data, "trajectories": trajectories.data, "signals": signals.data}
EXAMPLES = {"points": points, "trajectories": trajectories, "signals": signals}
LEVELS = {
    "VP": Level(0.6, 0.8), "VP, nearly clean": Level(0.9999**0.5, 0.01), "VE": Level(1.0, 14.6),
    "VE, low": Level(1.0, 0.03), "flow": Level(0.3, 0.7), "flow, nearly noise": Level(0.001, 0.999),
}  # fmt: skip


def dense(kind):
    """Means ``(components, elements)`` and covariance of the data, from its definition."""
    data = KINDS[kind]().double()
    means = data.means.flatten(1)
    if data.basis is None:
        return data, means, data.variances * torch.eye(means.shape[1], dtype=torch.float64)
    return data, means, data.basis @ torch.diag(data.variances) @ data.basis.T


def noisy(data, level, n=3):
    """Noisy samples of every class."""
    generator = torch.Generator().manual_seed(1)
    x_0 = data.draw(torch.arange(n) % data.classes, generator).double()
    return level.signal * x_0 + level.noise * torch.randn(x_0.shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_of_the_classes_is_bayes_with_scipys_densities(kind, name):
    data, means, covariance = dense(kind)
    level = LEVELS[name]
    x = noisy(data, level)
    spread = level.signal**2 * covariance.numpy() + level.noise**2 * np.eye(len(covariance))
    log = np.stack(
        [multivariate_normal(level.signal * m, spread).logpdf(x.flatten(1).numpy()) for m in means.numpy()], axis=1
    )
    classes = np.logaddexp.reduce(log.reshape(len(x), data.classes, -1), axis=2)
    wanted = classes - np.logaddexp.reduce(classes, axis=1, keepdims=True)
    got = data.logits(x / level.scale, level.alphas_cumprod).log_softmax(dim=1)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_epsilon_is_the_score_of_the_density(kind, name):
    """By autograd of log p(x_t), in each process's own form of x_t."""
    data, means, covariance = dense(kind)
    level = LEVELS[name]
    x = noisy(data, level).requires_grad_()
    precision = torch.linalg.inv(level.signal**2 * covariance + level.noise**2 * torch.eye(len(covariance)))
    off = x.flatten(1)[:, None] - level.signal * means
    log_density = torch.logsumexp(-torch.einsum("nki,ij,nkj->nk", off, precision, off) / 2, dim=1).sum()
    (score,) = torch.autograd.grad(log_density, x)
    got = data.epsilon(x.detach() / level.scale, level.alphas_cumprod)
    torch.testing.assert_close(got, -level.noise * score, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["VP", "VE", "flow"])
def test_x0_hat_is_the_mean_of_draws_weighted_by_their_likelihood(name):
    """Importance sampling of E(x_0 | x_t), without any formula of mixtures."""
    data, level = points.data().double(), LEVELS[name]
    generator = torch.Generator().manual_seed(2)
    draws = data.draw(torch.arange(400_000) % 2, generator).double()
    x = noisy(data, level, n=2)
    for one in x:
        weight = (-(one - level.signal * draws).square().sum(dim=1) / (2 * level.noise**2)).softmax(dim=0)
        wanted = (weight[:, None] * draws).sum(dim=0)
        error = ((weight[:, None] * (draws - wanted)).square().sum(dim=0)).sqrt()
        epsilon = data.epsilon(one[None] / level.scale, level.alphas_cumprod)
        got = level.original(epsilon, one[None], "epsilon")[0]
        assert ((got - wanted).abs() < 5 * error + 1e-6).all(), (got, wanted, error)


@pytest.mark.parametrize("kind", ["trajectories", "signals"])
def test_draws_have_the_means_and_the_covariance_of_their_class(kind):
    data, means, covariance = dense(kind)
    x = data.draw(torch.zeros(40_000, dtype=torch.int64), torch.Generator().manual_seed(3)).flatten(1).double()
    own = means[: len(means) // data.classes]
    between = torch.cov(own.T, correction=0)
    largest = (covariance + between).diagonal().max()
    assert (x.mean(dim=0) - own.mean(dim=0)).abs().max() < 5 * (largest / len(x)) ** 0.5
    assert (torch.cov(x.T) - covariance - between).abs().max() < 10 * largest / len(x) ** 0.5


def test_between_two_timesteps_alphas_cumprod_is_that_of_diffusers_sigma():
    """Euler's linspace visits timesteps that are not whole."""
    trained = mixture.scheduler()
    euler = EulerDiscreteScheduler.from_config(trained.config, timestep_spacing="linspace")
    times = Schedule(euler, 400).times
    assert any(t.timestep % 1 for t in times)
    got = share_at(trained.alphas_cumprod, torch.tensor([t.timestep for t in times]))
    np.testing.assert_allclose(got, [t.level.alphas_cumprod for t in times], rtol=1e-5)
    assert float(share_at(trained.alphas_cumprod, 7.0)) == float(share_at(trained.alphas_cumprod, 7))


def test_denoiser_and_guide_take_one_timestep_a_sample():
    data, table = points.data(), mixture.scheduler().alphas_cumprod
    unet, guide = Denoiser(data, table), NoiseAware(data, table)
    x, t = torch.randn(3, 2, generator=torch.Generator().manual_seed(4)), torch.tensor([0, 400, 999])
    for i in range(3):
        torch.testing.assert_close(unet(x, t)[i], unet(x[i : i + 1], int(t[i]))[0])
        torch.testing.assert_close(guide(x, t)[i], guide(x[i : i + 1], t[i : i + 1])[0])


def test_the_judge_of_images_sees_clean_ones():
    means = mixture.images().means
    assert mixture.judge()(means).argmax(dim=1).tolist() == list(range(mixture.CLASSES))


@pytest.mark.parametrize("kind", EXAMPLES)
def test_judge_and_exact_classifier_agree_on_clean_samples(kind):
    """The judge knows the geometry and nothing of the mixture."""
    example, data = EXAMPLES[kind], KINDS[kind]()
    label = torch.arange(2000) % data.classes
    x = data.draw(label, torch.Generator().manual_seed(5))
    assert (example.judge()(x).argmax(dim=1) == label).float().mean() > 0.995
    assert (example.clean()(x).argmax(dim=1) == label).float().mean() > 0.995
    assert example.denoiser()[0].config.sample_shape == tuple(x.shape[1:])


def test_the_clearance_prefers_paths_on_the_targets_side():
    left, right = trajectories.data().means.unflatten(0, (2, -1))[:, 0]
    x_0 = torch.stack([left, right])
    at_left = trajectories.clearance(x_0, torch.zeros(2), x_0, torch.tensor([0.45, 0.45]))
    assert at_left[0] > at_left[1]


def test_a_covariance_of_equal_variances_is_that_standard_deviation():
    means = torch.randn(2, 3, 4, 2, generator=torch.Generator().manual_seed(6))
    plain, dense_ = Mixture(means, 0.3), Mixture(means, 0.09 * torch.eye(8))
    x = torch.randn(5, 4, 2, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(plain.epsilon(x, 0.4), dense_.epsilon(x, 0.4), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(Clean(plain)(x), Clean(dense_)(x), rtol=1e-4, atol=1e-3)
