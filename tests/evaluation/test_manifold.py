"""Precision, recall, density and coverage against sklearn's neighbours and plain loops."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from gradscope.evaluation import manifold
from gradscope.evaluation.manifold import NEIGHBOURS, fidelity, radii


@pytest.fixture(params=[7, 256], ids=["small blocks", "one block"], autouse=True)
def blocks(monkeypatch, request):
    monkeypatch.setattr(manifold, "_ROWS", request.param)


def points(n: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3)) + shift


def by_sklearn(features: np.ndarray) -> np.ndarray:
    """The first of six neighbours is the point itself."""
    distances, _ = NearestNeighbors(n_neighbors=NEIGHBOURS + 1).fit(features).kneighbors(features)
    return distances[:, -1]


def test_a_radius_reaches_the_fifth_nearest_other_image():
    features = points(40, 0)
    np.testing.assert_allclose(radii(features), by_sklearn(features))


@pytest.mark.parametrize("shift", [0.0, 1.5, 20.0])
@pytest.mark.parametrize("samples", [30, 25])
def test_every_indicator_is_that_of_a_loop_over_pairs(shift, samples):
    real, fake = points(30, 0), points(samples, 1, shift)
    real_radii, fake_radii = by_sklearn(real), by_sklearn(fake)
    in_real = [[np.linalg.norm(x - y) <= r for x, r in zip(real, real_radii, strict=True)] for y in fake]
    in_fake = [[np.linalg.norm(x - y) <= r for y, r in zip(fake, fake_radii, strict=True)] for x in real]
    found = fidelity(real, radii(real), fake)
    np.testing.assert_array_equal(found.precision, [any(row) for row in in_real])
    np.testing.assert_allclose(found.density, [sum(row) / NEIGHBOURS for row in in_real])
    np.testing.assert_array_equal(found.recall, [any(row) for row in in_fake])
    np.testing.assert_array_equal(found.coverage, [any(column) for column in zip(*in_real, strict=True)])


def test_samples_like_the_real_ones_density_one_and_nearly_all_covered():
    """The coverage of two sets of one distribution tends to 1 - 2^-k (arXiv 2002.09797)."""
    found = fidelity(points(2000, 0), radii(points(2000, 0)), points(2000, 1))
    assert found.density.mean() == pytest.approx(1, abs=0.05)
    assert found.coverage.mean() == pytest.approx(1 - 0.5**NEIGHBOURS, abs=0.015)


def test_collapsed_samples_are_precise_and_cover_little():
    real = points(200, 0)
    found = fidelity(real, radii(real), real[:1] + 1e-3 * points(200, 1))
    assert found.precision.mean() == 1
    assert found.coverage.mean() < 0.1
    assert found.recall.mean() < 0.1


def test_few_images_have_no_radii_and_no_indicators():
    real, few = points(20, 0), points(NEIGHBOURS, 1)
    assert np.isnan(radii(few)).all()
    for a, b in ((real, few), (few, real)):
        found = fidelity(a, radii(a), b)
        assert all(len(getattr(found, name)) == 0 for name in ("precision", "density", "recall", "coverage"))
