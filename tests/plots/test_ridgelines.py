"""Ridgelines: densities against scipy, and the values that were left out."""

import numpy as np
import pytest
from scipy.stats import gaussian_kde
from small_store import BAD, GOOD, SAMPLES, TIMESTEPS

from gradscope.errors import GradscopeError
from gradscope.plots.ridgelines import draw_ridgelines, ridgelines, ridgelines_numbers

AT_GOOD = (0, 0, 0, 1)


def test_densities_are_gaussian_kernels_of_silvermans_bandwidth(ds):
    numbers = ridgelines_numbers(ds, "log_prob", [GOOD, BAD])
    values = ds["log_prob"].values[AT_GOOD]
    for k in (0, 4, 9):
        ridge = numbers[(numbers["classifier"] == "robust") & (numbers["timestep"] == ds["timestep"].values[k])]
        sample = values[:, k]
        iqr = np.subtract(*np.quantile(sample, (0.75, 0.25)))
        width = 0.9 * min(sample.std(), iqr / 1.34) * SAMPLES**-0.2
        grid = ridge["value"].to_numpy()
        width = max(width, 2 * (grid[1] - grid[0]))
        assert grid.max() <= 0  # a log-probability is not larger
        estimate = gaussian_kde(sample, bw_method=width / sample.std(ddof=1))
        expected = estimate(grid) + estimate(-grid)  # kernels are reflected at 0
        np.testing.assert_allclose(ridge["density"], expected, rtol=1e-6, atol=1e-12)
        assert set(ridge["median"]) == {np.median(sample)}
    assert numbers["timestep"].nunique() == TIMESTEPS
    assert numbers.groupby(["classifier", "timestep"])["value"].agg(tuple).nunique() == 1  # shared limits


def test_timesteps_are_spaced_evenly_among_those_with_values(ds):
    ds["log_prob"][..., 0] = np.nan
    numbers = ridgelines_numbers(ds, "log_prob", [GOOD], timesteps=4)
    t = ds["timestep"].values
    assert numbers["timestep"].unique().tolist() == [t[1], t[4], t[6], t[9]]


def test_values_that_are_left_out_are_counted(ds):
    ds["gradient_norm"][(*AT_GOOD, slice(0, 3), 2)] = 0
    ds["gradient_norm"][(*AT_GOOD, 4, 2)] = np.nan
    ds["written"][(*AT_GOOD, 5, slice(2, None))] = 0
    ds["gradient_norm"] = ds["gradient_norm"].where(ds["written"] > 0)
    numbers = ridgelines_numbers(ds, "gradient_norm", [GOOD])
    ridge = numbers[numbers["timestep"] == ds["timestep"].values[2]].iloc[0]
    assert (ridge["n"], ridge["zero"], ridge["not_finite"]) == (SAMPLES - 5, 3, 1)
    assert numbers.attrs["label"] == "log10 gradient_norm"
    title = draw_ridgelines(numbers).layout.annotations[0].text
    assert title == "robust<br>x_t, no stabiliser, s = 0.5<br>N = 11 to 16<br>1 not finite, 3 zero"
    assert ridgelines(ds, "log_prob", [BAD]).layout.annotations[0].text.endswith("N = 16<br>all finite")


def test_ridges_stand_on_their_rows_in_a_column_per_cell(ds):
    numbers = ridgelines_numbers(ds, "log_prob", [GOOD, BAD], timesteps=3)
    figure = draw_ridgelines(numbers)
    outlines, medians = figure.data[::2], figure.data[1::2]
    assert [trace.xaxis for trace in outlines] == ["x", "x2"]
    ridges = np.split(np.asarray(outlines[0].y), 3)
    for row, ridge in enumerate(ridges):
        known = ridge[np.isfinite(ridge)]
        assert known.max() == pytest.approx(row)
        assert known.min() == pytest.approx(row - 1.5)  # the peak; the axis points downwards
        density = numbers["density"].to_numpy()[: 3 * 160].reshape(3, -1)[row]
        assert np.argmin(ridge[:160]) == np.argmax(density)
    assert len(medians[1].x) == 3
    assert list(figure.layout.yaxis.ticktext) == [f"t = {t}" for t in numbers["timestep"].unique()]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]


def test_equal_values_have_a_ridge(ds):
    ds["log_prob"][AT_GOOD] = -1
    ds["log_prob"][(*AT_GOOD, slice(1, None), 3)] = np.nan
    numbers = ridgelines_numbers(ds, "log_prob", [GOOD])
    assert np.isfinite(numbers["density"]).all()
    highest = numbers.groupby("timestep", sort=False)["density"].max().to_numpy() > 0
    assert highest.tolist() == [k != 3 for k in range(TIMESTEPS)]  # of one sample alone there is none


def test_of_few_samples_there_is_a_median_alone(ds):
    for count in (4, 7, 8):
        numbers = ridgelines_numbers(ds.isel(sample=slice(count)), "log_prob", [GOOD])
        assert (numbers["density"] > 0).any() == (count == 8)
        assert np.isfinite(numbers["median"]).all()
        title = draw_ridgelines(numbers).layout.annotations[0].text
        assert title.endswith(f"N = {count}<br>{'all finite' if count == 8 else 'too few for densities'}")


def test_no_density_lies_beyond_the_values_that_are_possible(ds):
    """Cosines near 1: the mass between -1 and 1 is one."""
    near = 1 - np.abs(np.random.default_rng(0).normal(0, 0.02, ds["gradient_cosine"].shape))
    ds["gradient_cosine"][...] = near
    numbers = ridgelines_numbers(ds, "gradient_cosine", [GOOD])
    assert numbers["value"].max() == 1
    for _, ridge in numbers.groupby("timestep"):
        assert np.trapezoid(ridge["density"], ridge["value"]) == pytest.approx(1, abs=0.03)


def test_too_many_cells_and_missing_values_are_refused(ds):
    with pytest.raises(GradscopeError, match="got 5 cells and 12 timesteps; at most 4 and 40"):
        ridgelines(ds, "log_prob", [GOOD | {"stabilizer": s, "classifier_input": c} for s in ("none", "adam")
                                    for c in ("x_t", "x0")] + [BAD])  # fmt: skip
    ds["log_prob"][...] = np.nan
    with pytest.raises(GradscopeError, match=r"log_prob \[nat\] has no finite values in these cells"):
        ridgelines(ds, "log_prob", [GOOD])
