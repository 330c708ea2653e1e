"""Distances against torchmetrics on the same images, closed forms and plain loops."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from gradscope.evaluation import distances
from gradscope.evaluation.distances import Frechet, Kernel
from gradscope.intervals import resampled

WIDTH = 6


class Pixels(nn.Module):
    """Features are the pixels, as torchmetrics wants them."""

    num_features = WIDTH

    def forward(self, x):
        return x.flatten(1)


def gaussian(n: int, seed: int, mean: float, mix: float, width: int = WIDTH) -> np.ndarray:
    """Correlated Gaussian features."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) @ (np.eye(width) + mix * rng.normal(size=(width, width))) + mean


def closed_form(a: np.ndarray, b: np.ndarray) -> float:
    """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))."""
    s_a, s_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(s_a @ s_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(s_a + s_b - 2 * root.real))


def by_torchmetrics(metric, real: np.ndarray, fake: np.ndarray) -> float:
    for features, is_real in ((real, True), (fake, False)):
        metric.update(torch.from_numpy(features).reshape(-1, 3, 1, features.shape[1] // 3), real=is_real)
    value = metric.compute()
    return float(value[0] if isinstance(value, tuple) else value)


SETS = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-1.0, 1.0)]


@pytest.mark.parametrize(("mean", "mix"), SETS)
def test_the_frechet_distance_is_the_closed_form(mean, mix):
    real, fake = gaussian(300, 0, 0.2, 0.3), gaussian(200, 1, mean, mix)
    frechet = Frechet(real)
    for part in (fake, fake[:50], fake):  # the real side stays, and nothing else does
        wanted = closed_form(real, part)
        assert frechet.distance(part) == pytest.approx(wanted, rel=1e-6, abs=1e-8)
        assert wanted > 0.01


@pytest.mark.parametrize(("mean", "mix"), SETS)
@pytest.mark.parametrize("samples", [200, 5], ids=["more samples than features", "fewer"])
def test_replicates_of_the_frechet_distance_are_those_of_torchmetrics(mean, mix, samples):
    real, fake = gaussian(300, 0, 0.2, 0.3), gaussian(samples, 1, mean, mix)
    counts = resampled(samples, 4)
    for replicate, count in zip(Frechet(real).replicates(fake, counts), counts, strict=True):
        drawn = np.repeat(fake, count, axis=0)
        wanted = by_torchmetrics(FrechetInceptionDistance(feature=Pixels()), real, drawn)
        assert replicate == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_identical_sets_have_frechet_distance_zero_and_a_shift_its_square():
    real = gaussian(100, 0, 0.0, 0.3)
    assert Frechet(real).distance(real) == pytest.approx(0, abs=1e-8)
    assert Frechet(real).distance(real + 0.5) == pytest.approx(WIDTH * 0.25)


def kernel_distance(real: np.ndarray, fake: np.ndarray) -> float:
    """By loops over pairs."""

    def k(x, y):
        return (x @ y / len(x) + 1) ** 3

    def within(a):
        return np.mean([k(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])

    return within(real) + within(fake) - 2 * np.mean([k(x, y) for x in real for y in fake])


@pytest.fixture(params=[7, 256], ids=["small blocks", "one block"])
def blocks(monkeypatch, request):
    monkeypatch.setattr(distances, "_ROWS", request.param)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize(("mean", "mix"), SETS)
def test_the_kernel_distance_is_the_mean_over_pairs(mean, mix):
    real, fake = gaussian(40, 0, 0.2, 0.3), gaussian(30, 1, mean, mix)
    assert Kernel(real).distance(fake) == pytest.approx(kernel_distance(real, fake), rel=1e-9)


@pytest.mark.parametrize(("mean", "mix"), SETS)
def test_the_kernel_distance_of_sets_of_one_size_is_torchmetrics(mean, mix):
    real, fake = gaussian(60, 0, 0.2, 0.3), gaussian(60, 1, mean, mix)
    metric = KernelInceptionDistance(feature=Pixels(), subsets=1, subset_size=60)
    assert Kernel(real).distance(fake) == pytest.approx(by_torchmetrics(metric, real, fake), rel=1e-6)


@pytest.mark.usefixtures("blocks")
def test_replicates_of_the_kernel_distance_are_those_of_the_drawn_samples():
    real, fake = gaussian(30, 0, 0.2, 0.3), gaussian(20, 1, 0.4, 0.2)
    counts = resampled(20, 5)
    wanted = [kernel_distance(real, np.repeat(fake, count, axis=0)) for count in counts]
    np.testing.assert_allclose(Kernel(real).replicates(fake, counts), wanted)


def test_the_kernel_distance_is_without_bias():
    """Of the same distribution: zero on average, however few samples."""
    values = [Kernel(gaussian(50, s, 0.0, 0.0)).distance(gaussian(10, s + 1000, 0.0, 0.0)) for s in range(200)]
    assert abs(np.mean(values)) < 2.5 * np.std(values) / np.sqrt(200)


@pytest.mark.parametrize("kind", [Frechet, Kernel])
def test_with_fewer_than_two_images_on_a_side_there_is_no_distance(kind):
    real = gaussian(10, 0, 0, 0)
    for few in (0, 1):
        assert np.isnan(kind(real).distance(real[:few]))
        assert np.isnan(kind(real[:few]).distance(real))
        assert np.isnan(kind(real).replicates(real[:few], np.ones((3, few), dtype=np.int64))).all()
        assert np.isnan(kind(real[:few]).replicates(real, np.ones((3, 10), dtype=np.int64))).all()
