"""Comparisons of synthetic cells with known differences, computed again with scipy, statsmodels and plain loops."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from small_store import CELLS, GOOD, SHAPE
from statsmodels.stats.multitest import multipletests

import gradscope
from gradscope.analysis import compare, compare_all
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS

OVER = (*CELL_DIMS, "sample", "timestep")
TIMESTEPS = 12
ADAM = GOOD | {"stabilizer": "adam"}
AT_GOOD, AT_ADAM = (0, 0, 0, 1), (0, 0, 1, 1)


def store(samples=80, seed=0):
    """Noise in every cell. In `ADAM` the cosines of steps 4 to 8 are higher by 0.2, and the accuracy is higher."""
    rng = np.random.default_rng(seed)
    shape = (*SHAPE, samples, TIMESTEPS)
    of_sample = rng.normal(size=(samples, 1))  # shared by all cells
    values = {
        "gradient_cosine": 0.1 * (of_sample + rng.normal(size=shape)),
        "gradient_norm": np.exp(3 * rng.normal(size=shape) - 40),
        "effective_strength": np.full(shape, 0.2) * (1 + 1e-8 * rng.normal(size=shape)),
        "log_prob": -np.abs(of_sample + rng.normal(size=shape)),
    }
    values["gradient_cosine"][(*AT_ADAM, slice(None), slice(4, 9))] += 0.2
    values["gradient_cosine"][..., 0] = np.nan
    values["effective_strength"][..., -1] = np.nan
    label = np.arange(samples) % 4
    right = rng.random((*SHAPE, samples)) < 0.5
    right[AT_ADAM] |= rng.random(samples) < 0.8
    return xr.Dataset(
        {name: (OVER, x.astype(np.float32)) for name, x in values.items()}
        | {
            "judge_prediction": ((*CELL_DIMS, "sample"), np.where(right, label, (label + 1) % 4).astype(np.int16)),
            "written": (OVER, np.ones(shape, dtype=np.uint8)),
        },
        coords=CELLS | {"label": ("sample", label), "timestep": np.arange(TIMESTEPS)[::-1] * 80 + 79},
    )


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


def verdicts(ds, at, rows=slice(None)):
    return (ds["judge_prediction"].values[at] == ds["label"].values)[rows]


def mid_p(a, b):
    more, fewer = sorted([(b & ~a).sum(), (a & ~b).sum()], reverse=True)
    share = stats.binom(more + fewer, 0.5)
    return min(1, 2 * share.sf(more) + share.pmf(more))


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


def with_distances(ds, replicates=500):
    """Distances with biased replicates: in every cell too large by the same amount, and with common noise."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=replicates)
    distance, coverage = 10 + 5 * rng.random(SHAPE), rng.random(SHAPE)
    own = 0.1 * rng.normal(size=(*SHAPE, replicates))
    names = (*CELL_DIMS, "replicate")
    return ds.assign(
        fd_extractor=(CELL_DIMS, distance),
        fd_extractor_replicates=(names, distance[..., None] + 3 + common + own),
        coverage=(CELL_DIMS, coverage),
        coverage_replicates=(names, coverage[..., None] + 0.01 * own),
        fd_extractor_floor=0.3,
        kd_extractor=(CELL_DIMS, distance / 100),
        kd_extractor_replicates=(names, (distance[..., None] + own) / 100),
    )


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


def test_every_cell_is_compared_with_its_reference(ds):
    ds = with_distances(ds)
    table = compare_all(ds)
    made = {tuple(r) for r in table[[*CELL_DIMS, "against"]].itertuples(index=False)}
    expected = set()
    for classifier in CELLS["classifier"]:
        expected |= {(classifier, i, "adam", 0.5, "none") for i in ("x_t", "x0")}
        expected |= {(classifier, "x0", s, 0.5, "x_t") for s in ("none", "adam")}
        expected |= {(classifier, "x0", "adam", 0.5, "x_t, none")}
    assert made == expected
    assert len(table) == 10
    for r in table.to_dict("records"):
        at = tuple(CELLS[dim].index(r[dim]) for dim in CELL_DIMS)
        references = {
            "none": (at[0], at[1], 0, at[3]),
            "x_t": (at[0], 0, at[2], at[3]),
            "x_t, none": (at[0], 0, 0, at[3]),
        }
        reference = references[r["against"]]
        names = {
            "none": ("adam", r["classifier_input"]),
            "x_t": ("x0", r["stabilizer"]),
            "x_t, none": ("x0 + adam", ""),
        }
        assert (r["technique"], r["at"]) == names[r["against"]]
        a, b = verdicts(ds, reference), verdicts(ds, at)
        assert r["accuracy"] == pytest.approx(b.mean() - a.mean())
        assert r["p"] == pytest.approx(mid_p(a, b))
        change = ds["kd_extractor"].values[at] - ds["kd_extractor"].values[reference]
        assert r["kd_extractor"] == pytest.approx(change)
        assert r["kd_extractor_low"] < change < r["kd_extractor_high"]
        assert "fd_extractor" not in r  # it is biased, more so with fewer samples
    np.testing.assert_allclose(table["p_holm"], multipletests(table["p"], method="holm")[1])
    assert (table["note"] == "").all()
    best = table.set_index(["classifier", "classifier_input", "stabilizer", "against"]).loc[
        ("robust", "x_t", "adam", "none")
    ]
    assert best["accuracy_low"] > 0
    assert best["p_holm"] < 0.05


def test_a_table_without_an_evaluation_says_so(ds):
    table = compare_all(ds.drop_vars("judge_prediction"))
    assert table["accuracy"].isna().all()
    assert set(table["note"]) == {"judge_prediction is not in this store; `gradscope evaluate STORE` adds it"}
    assert (table["n"] == 80).all()
    assert "kd_extractor" not in table


def test_the_baseline_must_be_there(ds):
    with pytest.raises(GradscopeError, match="no stabilizer 'nine'; did you mean 'none'"):
        compare_all(ds, baseline="nine")
    against_adam = compare_all(ds, baseline="adam")
    assert set(against_adam["against"]) == {"adam", "x_t", "x_t, adam"}
    assert set(compare_all(ds.sel(stabilizer=["adam"]))["against"]) == {"x_t"}
    assert len(compare_all(ds.sel(stabilizer=["adam"], classifier_input=["x_t"]))) == 0
