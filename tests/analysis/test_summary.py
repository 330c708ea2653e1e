"""The summary of a synthetic store, computed again with plain NumPy loops."""

import numpy as np
import pytest
import xarray as xr
from documentation import ROOT, blocks
from scipy.optimize import brentq

from gradscope.analysis import summary
from gradscope.intervals import wilson
from gradscope.store import CELL_DIMS

CELLS = (2, 1, 2, 1)
SAMPLES, TIMESTEPS = 9, 5


@pytest.fixture
def ds():
    rng = np.random.default_rng(0)
    over_time = (*CELL_DIMS, "sample", "timestep")
    shape = (*CELLS, SAMPLES, TIMESTEPS)
    cosine = rng.uniform(-1, 1, shape)
    cosine[..., 0] = np.nan
    written = np.full(shape, 3, dtype="uint8")
    written[1, 0, 1, 0, 5, 3:] = 0
    predictions = {name: rng.integers(0, 3, shape[:-1]) for name in ("own", "judge")}
    for prediction in predictions.values():
        prediction[0, 0, 1, 0, 2] = -1  # no finite image
    finite = np.ones(shape)
    finite[0, 0, 1, 0, 2, 4] = 0.5
    finite[0, 0, 1, 0, 3, 1] = 0
    return xr.Dataset(
        {
            "written": (over_time, written),
            "gradient_cosine": (over_time, np.where(written > 0, cosine, np.nan)),
            "finite_fraction": (over_time, finite),
            "own_prediction": ((*CELL_DIMS, "sample"), predictions["own"]),
            "judge_prediction": ((*CELL_DIMS, "sample"), predictions["judge"]),
        },
        coords={"label": ("sample", np.arange(SAMPLES) % 3)},
        attrs={"classes": ["a", "b", "c"]},
    )


def test_summary_counts_what_is_written(ds):
    rows = summary(ds)
    label = ds["label"].values
    for cell in np.ndindex(CELLS):
        done = [i for i in range(SAMPLES) if (ds["written"].values[cell][i] > 0).all()]
        assert int(rows["samples"].values[cell]) == len(done)
        for name in ("own", "judge"):
            seen = [i for i in done if ds[f"{name}_prediction"].values[cell][i] >= 0]
            right = [ds[f"{name}_prediction"].values[cell][i] == label[i] for i in seen]
            assert float(rows[f"{name}_accuracy"].values[cell]) == pytest.approx(sum(right) / len(seen))
            wanted = wilson(sum(right), len(seen))
            np.testing.assert_allclose(rows[f"{name}_accuracy_interval"].values[:, *cell], np.stack(wanted))
        by_class = [
            np.mean([ds["judge_prediction"].values[cell][i] == k for i in seen if label[i] == k]) for k in range(3)
        ]
        np.testing.assert_allclose(rows["class_accuracy"].values[cell], by_class)
        trajectories = [np.nanmean(ds["gradient_cosine"].values[cell][i]) for i in range(SAMPLES)]
        assert float(rows["gradient_cosine"].values[cell]) == pytest.approx(np.mean(trajectories))
    assert rows["samples"].values.ravel().tolist() == [9, 9, 9, 8]
    assert rows["nonfinite_steps"].values.ravel().tolist() == [0, 2, 0, 0]


def test_summary_leaves_out_variables_that_were_not_recorded(ds):
    rows = summary(ds.drop_vars(["gradient_cosine", "judge_prediction"]))
    assert "gradient_cosine" not in rows
    assert "class_accuracy" not in rows
    assert "own_accuracy" in rows


def test_an_evaluated_store_has_the_classes_of_its_evaluation(ds):
    nameless = ds.assign_attrs(classes=[]).assign_coords({"class": ["x", "y", "z"]})
    found = summary(nameless)["class_accuracy"]
    assert found["class"].values.tolist() == ["x", "y", "z"]
    np.testing.assert_array_equal(found, summary(ds)["class_accuracy"])


@pytest.mark.parametrize(("k", "n"), [(0, 10), (3, 10), (55, 64), (1024, 1024), (1, 1)])
def test_wilson_bounds_solve_the_score_equation(k, n):
    """The bounds are those p for which (k/n - p)^2 = z^2 p (1 - p) / n."""
    z = 1.959963984540054
    share = k / n

    def excess(p):
        return (share - p) ** 2 - z**2 * p * (1 - p) / n

    low, high = wilson(k, n)
    expected_low = 0 if k == 0 else brentq(excess, 1e-12, share - 1e-12)
    expected_high = 1 if k == n else brentq(excess, share + 1e-12, 1 - 1e-12)
    assert float(low) == pytest.approx(expected_low, abs=1e-9)
    assert float(high) == pytest.approx(expected_high, abs=1e-9)


def test_wilson_is_vectorised_and_has_no_bounds_without_trials():
    low, high = wilson([[1, 2], [3, 0]], [[4, 4], [4, 0]])
    assert low.shape == high.shape == (2, 2)
    assert np.isnan([low[1, 1], high[1, 1]]).all()
    assert (low[0] < [0.25, 0.5]).all()
    assert (high[0] > [0.25, 0.5]).all()


def test_masked_means_of_the_documentation_hold_on_runs_that_are_partly_written(ds):
    """Unwritten integers are -1: unmasked, they count as wrong."""
    page = ROOT / "docs" / "how-to" / "questions.md"
    (block,) = [code for code in blocks(page, "python") if "where(ds.written" in code]
    there = ds["written"].values > 0
    seen = np.where(there, np.arange(TIMESTEPS) % 3, -1)
    ds["predicted_class"] = (ds["written"].dims, seen)
    ds["judge_prediction"] = ds["judge_prediction"].where((ds["written"] > 0).all("timestep"), -1)
    names = {"ds": ds}
    exec(block, names)
    np.testing.assert_allclose(names["right"], summary(ds)["judge_accuracy"])
    label = ds["label"].values
    for at in np.ndindex(CELLS):
        for t in range(TIMESTEPS):
            rows = [i for i in range(SAMPLES) if there[(*at, i, t)]]
            share = np.mean([seen[(*at, i, t)] == label[i] for i in rows])
            assert names["believed"].values[(*at, t)] == pytest.approx(share)
