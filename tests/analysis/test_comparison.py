"""Comparisons of synthetic cells with known differences, computed again with scipy, statsmodels and plain loops."""

import json

import numpy as np
import pytest
import xarray as xr
from different_cells import ADAM, AT_ADAM, AT_GOOD, TIMESTEPS, mid_p, store, verdicts, with_distances
from scipy import stats
from small_store import GOOD
from statsmodels.stats.multitest import multipletests

import gradscope
from gradscope.analysis import compare, compare_all
from gradscope.errors import GradscopeError


@pytest.fixture
def ds():
    return store()


def row(comparison, name):
    return comparison.scalars.set_index("diagnostic").loc[name]


def test_scalars_are_paired_means_of_trajectories(ds):
    found = compare(ds, GOOD, ADAM)
    assert list(found.scalars["diagnostic"]) == [
        "gradient_cosine",
        "log10 gradient_norm",
        "effective_strength",
        "final log_prob",
    ]
    read = {name: ds[name].values.astype(float) for name in ds.data_vars}
    by_hand = {
        "gradient_cosine": [np.nanmean(read["gradient_cosine"][at], axis=1) for at in (AT_GOOD, AT_ADAM)],
        "log10 gradient_norm": [np.log10(read["gradient_norm"][at]).mean(axis=1) for at in (AT_GOOD, AT_ADAM)],
        "final log_prob": [read["log_prob"][at][:, -1] for at in (AT_GOOD, AT_ADAM)],
    }
    for name, (a, b) in by_hand.items():
        got = row(found, name)
        assert got["n"] == 80
        assert (got["mean_a"], got["mean_b"]) == pytest.approx((a.mean(), b.mean()))
        assert got["estimate"] == pytest.approx((b - a).mean())
        wanted = stats.ttest_rel(b, a)
        assert got["p"] == pytest.approx(wanted.pvalue)
        assert (got["low"], got["high"]) == pytest.approx(tuple(wanted.confidence_interval()))
        assert got["note"] == ""
    assert row(found, "gradient_cosine")["estimate"] == pytest.approx(0.2 * 5 / 11, abs=0.02)
    assert row(found, "gradient_cosine")["p_holm"] < 1e-6
    assert row(found, "gradient_cosine")["effect"] > 0.9
    p = found.scalars["p"].to_numpy()
    np.testing.assert_allclose(found.scalars["p_holm"], multipletests(p, method="holm")[1])


def test_rounding_is_no_difference_of_normalised_strengths(ds):
    found = compare(ds, GOOD, ADAM)
    got = row(found, "effective_strength")
    assert (got["estimate"], got["low"], got["high"], got["effect"], got["p"]) == (0, 0, 0, 0, 1)
    assert found.curves["effective_strength"] == []


def test_curves_differ_at_the_known_timesteps(ds):
    curves = compare(ds, GOOD, ADAM).curves
    significant = [cluster for cluster in curves["gradient_cosine"] if cluster.p < 0.05]
    timestep = ds["timestep"].values
    (found,) = significant
    assert found.first in timestep[3:5]
    assert found.last in timestep[8:10]  # chance may add one step on either side
    assert found.estimate == pytest.approx(0.2, abs=0.05)
    assert not [cluster for cluster in curves["log_prob"] if cluster.p < 0.01]
    assert sorted(curves) == ["effective_strength", "gradient_cosine", "log_prob"]


def test_accuracy_is_compared_by_mcnemars_test(ds):
    a, b = verdicts(ds, AT_GOOD), verdicts(ds, AT_ADAM)
    test = compare(ds, GOOD, ADAM).accuracy
    assert test.estimate == pytest.approx(b.mean() - a.mean())
    assert test.p == pytest.approx(mid_p(a, b))
    assert test.low > 0
    back = compare(ds, ADAM, GOOD)
    assert back.accuracy.estimate == -test.estimate
    assert back.accuracy.p == test.p
    assert row(back, "gradient_cosine")["estimate"] == -row(compare(ds, GOOD, ADAM), "gradient_cosine")["estimate"]


def test_only_samples_finished_in_both_cells_are_compared():
    ds = store(100)
    ds["written"][(*AT_GOOD, slice(90, None), slice(6, None))] = 0
    ds["written"][(*AT_ADAM, slice(0, 10), slice(11, None))] = 0
    rows = slice(10, 90)
    found = compare(ds.chunk(), GOOD, ADAM)
    assert found.samples == 80
    assert found.accuracy.n == 80
    assert found.accuracy.estimate == pytest.approx(
        verdicts(ds, AT_ADAM, rows).mean() - verdicts(ds, AT_GOOD, rows).mean()
    )
    whole = compare(ds.isel(sample=rows).assign(written=xr.ones_like(ds["written"][..., rows, :])), GOOD, ADAM)
    assert whole.scalars.equals(found.scalars)
    assert whole.curves == found.curves


def test_too_few_samples_have_no_p():
    found = compare(store(40), GOOD, ADAM)
    assert found.scalars["p"].isna().all()
    assert found.scalars["p_holm"].isna().all()
    assert set(found.scalars["note"]) == {"insufficient samples: 40 of 64"}
    assert np.isfinite(found.scalars[["estimate", "low", "high", "effect"]].to_numpy()).all()
    assert found.accuracy.note == "insufficient samples: 40 of 64"
    assert np.isnan([c.p for c in found.curves["gradient_cosine"]]).all()
    assert len(found.curves["gradient_cosine"]) > 0


def test_cells_without_common_samples_say_so(ds):
    ds["written"][AT_ADAM] = 0
    found = compare(ds, GOOD, ADAM)
    assert found.samples == 0
    assert set(found.scalars["note"]) == {"insufficient samples: 0 of 64"}
    assert np.isnan(found.accuracy.estimate)
    assert found.curves["gradient_cosine"] == []
    table = compare_all(ds)
    assert table.set_index("stabilizer").loc["adam"].iloc[0]["note"] == "insufficient samples: 0 of 64"


def test_values_that_are_not_finite_are_counted(ds):
    ds["gradient_norm"][(*AT_ADAM, 3, slice(2, 5))] = 0  # the logarithm is infinite
    ds["gradient_norm"][(*AT_GOOD, 5)] = np.nan
    found = row(compare(ds, GOOD, ADAM), "log10 gradient_norm")
    assert found["n"] == 79
    assert found["note"] == "1 of 80 pairs not finite; 15 of 960 timesteps not finite"
    means = []
    for i in set(range(80)) - {5}:
        steps = [0, 1, *range(5, TIMESTEPS)] if i == 3 else range(TIMESTEPS)
        a, b = (ds["gradient_norm"].values[at][i, list(steps)].astype(float) for at in (AT_GOOD, AT_ADAM))
        means.append(np.log10(b / a).mean())
    assert found["estimate"] == pytest.approx(np.mean(means))


def test_distances_are_compared_by_paired_replicates(ds):
    ds = with_distances(ds)
    found = compare(ds, GOOD, ADAM).distance
    assert sorted(found) == ["coverage", "fd_extractor", "kd_extractor"]
    fd = found["fd_extractor"]
    assert fd.estimate == pytest.approx(ds["fd_extractor"].values[AT_ADAM] - ds["fd_extractor"].values[AT_GOOD])
    half = 1.96 * 0.1 * 2**0.5  # the common noise and the bias cancel
    assert (fd.low, fd.high) == pytest.approx((fd.estimate - half, fd.estimate + half), abs=0.05)
    ds["fd_extractor_replicates"][AT_GOOD] = np.nan
    assert np.isnan(compare(ds, GOOD, ADAM).distance["fd_extractor"].low)


def test_missing_variables_are_named(ds):
    found = compare(ds.drop_vars(["judge_prediction", "log_prob"]), GOOD, ADAM)
    assert found.accuracy is None
    assert found.missing["accuracy"] == "judge_prediction is not in this store; `gradscope evaluate STORE` adds it"
    assert "the probe `belief` records it" in found.missing["final log_prob"]
    assert "log_prob" not in found.curves
    assert "the probe `reference` records it" in found.missing["reference_cosine"]
    assert found.missing["distance"].endswith("`gradscope evaluate STORE` adds it")
    empty = compare(ds[["written"]], GOOD, ADAM)
    assert len(empty.scalars) == 0
    assert empty.curves == {}


def test_a_comparison_is_json(ds):
    found = compare(with_distances(ds.isel(sample=slice(40))), GOOD, ADAM)
    back = json.loads(json.dumps(found.asdict(), allow_nan=False))
    assert back["b"] == ADAM
    assert back["scalars"][0]["diagnostic"] == "gradient_cosine"
    assert back["scalars"][0]["p"] is None
    assert back["accuracy"]["effect_name"] == "Cohen's g"
    assert back["curves"]["gradient_cosine"][0]["first"] in ds["timestep"].values
    assert back["distance"]["coverage"]["estimate"] == found.distance["coverage"].estimate
    assert gradscope.compare is compare


def test_dimensions_of_size_one_may_be_left_out(ds):
    one = ds.isel(classifier=[0], classifier_input=[0], guidance_scale=[1])
    found = compare(one, {"stabilizer": "none"}, {"stabilizer": "adam"})
    assert (found.a, found.b) == (GOOD, ADAM)
    assert found.scalars.equals(compare(ds, GOOD, ADAM).scalars)


def test_unknown_ambiguous_and_equal_cells_are_refused(ds):
    with pytest.raises(GradscopeError, match="which classifier_input\\? one of: x_t, x0"):
        compare(ds, {"classifier": "robust"}, ADAM)
    with pytest.raises(GradscopeError, match="unknown stabilizer 'adm'; did you mean 'adam'"):
        compare(ds, GOOD, GOOD | {"stabilizer": "adm"})
    with pytest.raises(GradscopeError, match="both are the cell classifier robust, .*stabilizer adam"):
        compare(ds, ADAM, ADAM)


def test_a_comparison_is_shown_as_a_table_of_its_numbers(ds):
    found = compare(with_distances(ds), GOOD, ADAM)
    lines = repr(found).splitlines()
    assert lines[0].startswith(f"Comparison of two cells over {found.samples} samples; b - a with its 95 % interval")
    assert lines[1].startswith(f"a: classifier {GOOD['classifier']}, classifier_input ")
    rows = {line.split("  ")[0]: line for line in lines}
    cosine = row(found, "gradient_cosine")
    for column in ("mean_a", "mean_b", "estimate", "low", "high"):
        assert f" {cosine[column]:.3g} " in rows["gradient_cosine"]
    assert found.accuracy is not None
    assert f" {found.accuracy.estimate:.3g} " in rows["judge_accuracy"]
    for name, difference in found.distance.items():
        assert f" {difference.estimate:.3g} " in rows[name]
    clusters = [cluster for each in found.curves.values() for cluster in each]
    assert sum(" at timesteps " in line for line in lines) == len(clusters) > 0
    assert "no score_cosine: " in lines[-2] + lines[-1] + repr(found)


def test_a_comparison_in_a_notebook_shows_names_as_text(ds):
    named = ds.assign_coords(classifier=["<script>x</script>", *ds["classifier"].values[1:]])
    name = {"classifier": "<script>x</script>"} if GOOD["classifier"] == ds["classifier"].values[0] else {}
    page = compare(named, GOOD | name, ADAM | name)._repr_html_()
    assert "<table" in page
    assert "<script>" not in page
    assert "&lt;script&gt;x" in page
