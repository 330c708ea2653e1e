"""Cosine, norm ratio, bias and variance on estimators whose values are known, and the intervals' coverage."""

import numpy as np
import pytest

from gradscope.oracle.scores import AtOnePlace, Moments, along_t, errors, mean_score, ratio_score


def moments_of(vectors, exact):
    """From vectors ``(replicates, n, d)`` and the exact gradient ``(n, d)``, one timestep."""
    norms = np.linalg.norm(vectors, axis=2) * np.linalg.norm(exact, axis=1)
    product = (vectors * exact).sum(axis=2)
    with np.errstate(invalid="ignore"):
        cosine = product / norms
    square = (exact**2).sum(axis=1)
    moments = Moments(cosine[None], (vectors**2).sum(axis=2)[None], np.broadcast_to(square, cosine.shape)[None])
    return moments, AtOnePlace(product[None], (vectors.mean(axis=0) ** 2).sum(axis=1)[None])


def test_a_known_bias_and_variance_are_found():
    """E + b + noise with b orthogonal to e: the best factor is |e|^2 / (|e|^2 + |b|^2 + d s^2)."""
    rng = np.random.default_rng(0)
    replicates, n, d, off, noise = 40, 4000, 10, 0.5, 0.2
    exact = np.zeros((n, d))
    exact[:, 0] = 1
    vectors = exact + noise * rng.standard_normal((replicates, n, d))
    vectors[:, :, 1] += off
    c = 1 / (1 + off**2 + d * noise**2)
    found = errors(*moments_of(vectors, exact))
    assert found["bias"][0][0] == pytest.approx(np.sqrt((1 - c) ** 2 + c**2 * off**2), abs=2e-3)
    assert found["variance"][0][0] == pytest.approx(c**2 * d * noise**2, abs=2e-3)


@pytest.mark.parametrize("factor", [1e-120, 0.25, -3.0, 1e100])
def test_a_factor_is_no_bias(factor):
    exact = np.random.default_rng(0).standard_normal((20, 6))
    moments, place = moments_of(np.stack([factor * exact] * 3), exact)
    found = errors(moments, place)
    assert found["bias"][0][0] < 1e-6
    assert found["variance"][0][0] < 1e-12
    assert along_t(moments)["norm_ratio"][0][0] == pytest.approx(abs(factor))
    assert along_t(moments)["cosine"][0][0] == pytest.approx(np.sign(factor))


def test_replicates_with_few_draws_do_not_add_to_the_bias():
    """The mean of R = 2 noisy replicates is off by noise / sqrt(R); the bias is not."""
    rng = np.random.default_rng(1)
    exact = np.tile([1.0, 0, 0, 0], (50_000, 1))
    vectors = exact + 0.5 * rng.standard_normal((2, 50_000, 4))
    found = errors(*moments_of(vectors, exact))
    c = 1 / (1 + 4 * 0.25)
    assert found["bias"][0][0] == pytest.approx(1 - c, abs=0.01)
    assert found["variance"][0][0] == pytest.approx(c**2 * 4 * 0.25, abs=0.01)


def test_one_replicate_has_no_variance():
    exact = np.eye(3)
    found = errors(*moments_of(exact[None], exact))
    assert np.isnan(found["variance"][0][0])
    assert found["bias"][0][0] < 1e-9


def test_a_gradient_of_zero_counts_as_no_agreement():
    exact = np.eye(4)
    vectors = exact.copy()
    vectors[0] = 0
    moments, place = moments_of(vectors[None], exact)
    assert along_t(moments)["cosine"][0][0] == 0.75
    dead, nowhere = moments_of(np.zeros((2, 4, 4)), exact)
    assert errors(dead, nowhere)["bias"][0][0] == 1
    assert errors(dead, nowhere)["variance"][0][0] == 0


def test_intervals_cover_the_truth():
    """2,000 sets of 30 samples: 95 % of the intervals of a mean and of a ratio hold the true one, up to 2 %."""
    rng = np.random.default_rng(0)
    below = 2 + rng.random((2000, 30))  # mean 2.5
    above = below * (1 + 0.3 * rng.standard_normal((2000, 30)))  # mean 2.5, ratio 1
    for truth, (_, low, high) in ((2.5, mean_score(below)), (1.0, ratio_score(above, below))):
        assert np.mean((low <= truth) & (truth <= high)) == pytest.approx(0.95, abs=0.02)


def test_ratios_to_a_gradient_that_dies_do_not_overflow():
    tiny = np.full((1, 5), 1e-260)
    value, low, high = ratio_score(np.array([[1.0, 2, 3, 4, 5]]), tiny)
    assert np.isfinite([value, low, high]).all()
