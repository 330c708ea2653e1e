"""Curves and the permutation null, against plain loops."""

import numpy as np
import pytest
import xarray as xr
from probed_store import CELLS, IMAGE, KEPT, OVER, SAMPLES, SHAPE, TIMESTEPS, coordinates
from scipy import stats

from gradscope.analysis import stability
from gradscope.errors import GradscopeError


@pytest.mark.slow
def test_curves_equal_those_of_a_loop(store):
    found = stability.curves(store, ["update_cosine", "gradient_norm"])
    for cell in np.ndindex(CELLS):
        for k in range(TIMESTEPS):
            for name in ("update_cosine", "gradient_norm"):
                x = store[name].values[(*cell, slice(None), k)].astype(float)
                x = x[np.isfinite(x)]
                at = (*cell, k)
                assert found[f"{name}_n"].values[at] == len(x)
                if not len(x):
                    assert np.isnan(found[name].values[at])
                    assert np.isnan(found[f"{name}_interval"].values[at]).all()
                    continue
                assert found[name].values[at] == pytest.approx(x.mean())
                np.testing.assert_allclose(
                    found[f"{name}_quantile"].values[at], np.quantile(x, [0.05, 0.25, 0.5, 0.75, 0.95])
                )
                low, high = found[f"{name}_interval"].values[at]
                wanted = stats.ttest_1samp(x, 0).confidence_interval()
                assert (low, high) == pytest.approx(tuple(wanted), rel=1e-6)
    assert found["update_cosine_n"].values[0, 0, 0, 0].tolist() == [0] + [12] * 22
    assert found["gradient_norm_n"].values[0, 0, 0, 0, 4] == 11
    assert (found["samples"] == SAMPLES).all()


def test_curves_of_all_scalars_count_only_written_samples(recorded):
    recorded["predicted_class"] = (OVER, np.zeros((*CELLS, SAMPLES, TIMESTEPS), dtype=np.int16))
    later = recorded["update_norm"][1, 0, 1, 0, 3:, 12:]
    recorded["written"][1, 0, 1, 0, 3:, 12:] = 0
    later[:] = np.nan
    found = stability.curves(recorded)
    names = {str(name) for name in recorded.data_vars if recorded[name].dims == OVER} - {"written", "predicted_class"}
    assert {name for name in found.data_vars if f"{name}_n" in found} == names
    assert found["samples"].values[1, 0, 1, 0].tolist() == [12] * 12 + [3] * 11
    assert found["update_norm_n"].values[1, 0, 1, 0].tolist() == [12] * 12 + [3] * 11
    with pytest.raises(GradscopeError, match="update_nom is not in this store; did you mean 'update_norm'"):
        stability.curves(recorded, ["update_nom"])


def test_the_null_pairs_different_samples(store):
    null = stability.permutation_null(store, {"classifier": "non_robust", "stabilizer": "adam"})
    gradient = store["gradient"].values[1, 0, 1, 0, :KEPT].astype(float).reshape(KEPT, TIMESTEPS, -1)
    for k in range(1, TIMESTEPS):
        cosines = []
        for i in range(KEPT):
            for j in set(range(KEPT)) - {i}:
                a, b = gradient[i, k], gradient[j, k - 1]
                with np.errstate(invalid="ignore"):
                    cosines.append(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
        cosines = np.array(cosines)[np.isfinite(cosines)]
        assert null["null_n"].values[k] == len(cosines)
        assert null["null_mean"].values[k] == pytest.approx(cosines.mean())
        np.testing.assert_allclose(null["null_interval"].values[k], np.quantile(cosines, [0.025, 0.975]))
    assert np.isnan(null["null_mean"].values[0])
    assert null["null_n"].values[2] == 30  # one of seven gradients is zero throughout
    assert null["null_n"].values[4] == 25  # and one is infinite at this step


def noise_store(samples, timesteps=6, drift=0.0):
    """One cell of white noise, with a direction that all samples share."""
    rng = np.random.default_rng(0)
    gradient = rng.normal(size=(1, 1, 1, 1, samples, timesteps, *SHAPE)) + drift
    return xr.Dataset(
        {
            "gradient": ((*OVER, *IMAGE), gradient),
            "written": (OVER, np.full(gradient.shape[:6], 3, dtype=np.uint8)),
        },
        coords=coordinates(samples, timesteps) | {"classifier": ["robust"], "stabilizer": ["none"]},
    )


def test_the_null_of_white_noise_is_known():
    """The interval is 1.96 times the standard deviation 1/sqrt(d); a shared direction raises the mean."""
    null = stability.permutation_null(noise_store(60), {})
    half = 1.96 / np.prod(SHAPE) ** 0.5
    np.testing.assert_allclose(null["null_interval"].values[1:], np.tile([-half, half], (5, 1)), rtol=0.1)
    assert (null["null_n"].values[1:] == 60 * 59).all()
    shared = stability.permutation_null(noise_store(60, drift=1.0), {})
    np.testing.assert_allclose(shared["null_mean"].values[1:], 0.5, atol=0.02)


def test_the_null_draws_no_more_samples_than_it_needs():
    ds = noise_store(60)
    null = stability.permutation_null(ds, {}, draws=100)
    assert (null["null_n"].values[1:] == 11 * 10).all()
    xr.testing.assert_identical(null, stability.permutation_null(ds, {}, draws=100))
    assert not null.equals(stability.permutation_null(ds, {}, draws=100, seed=1))
