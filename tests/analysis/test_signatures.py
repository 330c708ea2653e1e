import json

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binomtest

import gradscope
from gradscope.analysis.curve_signature import CurveSignature, longest_run
from gradscope.analysis.findings import Finding, findings_table, ranked
from gradscope.analysis.magnitude_signatures import leverage
from gradscope.analysis.signatures import CURVES, OTHERS, find, signatures, untested
from gradscope.analysis.synthetic import FAULTS, SIGNATURE, trajectories
from gradscope.config import RunConfig, load
from gradscope.models import mixture
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import CELL_DIMS
from probes import SOURCES

NOISE = {"unstable", "noise_dominated", "high_frequency", "ineffective"}


def found(ds):
    return {finding.signature: finding for finding in find(ds)}


@pytest.mark.parametrize("steps", [8, 30, 50, 100])
@pytest.mark.parametrize("seed", [0, 1])
def test_healthy_trajectories_have_no_finding(seed, steps):
    assert found(trajectories(seed=seed, timesteps=steps)) == {}


def test_white_noise_has_every_signature_of_noise():
    assert set(found(trajectories("white_noise"))) == NOISE


@pytest.mark.parametrize("steps", [30, 50, 100])
@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("none", "white_noise")])
def test_a_known_fault_is_found(fault, steps):
    name = SIGNATURE.get(fault, fault)
    finding = found(trajectories(fault, seed=2, timesteps=steps))[name]
    assert finding.low <= finding.effect <= finding.high
    assert 0 < finding.affected <= finding.samples <= 64
    assert finding.advice
    assert finding.cell["classifier"] == "synthetic"


def test_a_fault_of_single_samples_names_them():
    """One of 64 samples explodes; no mean shows it."""
    finding = found(trajectories("one_exploding"))["exploding"]
    assert (finding.affected, finding.samples, finding.severity) == (1, 64, "warning")
    assert finding.evidence.endswith("samples 32")


def test_a_fault_of_a_class_names_it():
    vanishing = [f for f in find(trajectories("class_vanishing")) if f.signature == "vanishing"]
    assert [(f.target_class, f.affected, f.samples) for f in vanishing] == [("0", 16, 16)]
    failing = [f for f in find(trajectories("classes_gone")) if f.signature == "class_failure"]
    assert [(f.target_class, f.effect, f.samples) for f in failing] == [("0", 0, 16), ("1", 0, 16)]


def test_opposite_cosines_do_not_cancel():
    """Half of the labels are wrong, so the mean cosine with the reference is 0."""
    ds = trajectories("half_mislabelled")
    assert abs(float(ds["reference_cosine"].mean())) < 0.02
    assert {f.target_class for f in find(ds) if f.signature == "misaligned"} == {"0", "2"}
    same_labels = ds.assign_coords(label=("sample", np.zeros(64, dtype=int)))
    (alone,) = [f for f in find(same_labels) if f.signature == "misaligned"]
    assert (alone.affected, alone.target_class) == (32, "")


def test_one_pixel_is_not_blamed_on_the_clamp():
    assert "dead_by_clipping" not in found(trajectories("one_pixel").assign_coords(classifier_input=["x0"]))
    assert "sparse" not in found(trajectories("clipped"))


def test_a_convinced_guide_gives_a_remark_and_not_vanishing():
    remark = found(trajectories("convinced"))
    assert {name: f.severity for name, f in remark.items()} == {"convinced": "remark"}
    assert "convinced" not in found(trajectories("vanishing"))


def test_the_gradient_of_a_guide_that_loses_its_belief_does_not_explode():
    """The factor 1 - p of log p grows by eleven orders of magnitude; the gradient of the margin does not."""
    ds = trajectories().load()
    margin = np.linspace(25, 0, 50)
    ds["margin"][:] = margin
    ds["log_prob"][:] = -np.logaddexp(0, -margin)
    ds["gradient_norm"][:] = 3 / (1 + np.exp(margin))
    assert "exploding" in found(ds)  # the store does not say that the objective is log p
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob"}})
    assert "exploding" not in found(ds)


def test_an_update_may_lag_behind_its_gradient_but_not_oppose_it():
    """ADAM's means are 0.25 to 0.44; a quarter of the steps below 0 is too much."""
    ds = trajectories().load()
    ds["update_gradient_cosine"][:] = 0.25
    assert found(ds) == {}
    ds["update_gradient_cosine"][..., 4::5] = -0.1  # 10 of 50
    assert found(ds) == {}
    ds["update_gradient_cosine"][..., 3::4] = -0.1
    assert found(ds)["unrelated_update"].affected == 64


def test_smoothgrad_has_no_factor_to_divide_out():
    """Its gradient is a mean over noised inputs, and their beliefs are not recorded."""
    ds = trajectories().load()
    margin = np.linspace(0, 49, 50)
    ds["margin"][:] = margin
    ds["gradient_norm"][:] = 12 * 10 ** (-0.1 * margin)
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob"}})
    assert "exploding" in found(ds)
    ds.attrs["configuration"] = json.dumps({"guidance": {"objective": "log_prob", "smoothgrad": {"samples": 8}}})
    assert "exploding" not in found(ds)


def test_accuracy_means_nothing_with_a_single_class():
    ds = accurate(64).assign_attrs(classes=["a"]).assign_coords(label=("sample", np.zeros(64, dtype=int)))
    zeros = {name: xr.zeros_like(ds[name]) for name in ("judge_prediction", "own_prediction", "predicted_class")}
    assert found(ds.assign(zeros)) == {}


@pytest.mark.parametrize(("samples", "steps"), [(4, 10), (8, 4), (64, 30)])
def test_an_update_that_follows_weakly_is_not_called_unrelated(samples, steps):
    """The sign of the means alone blamed half of the runs with a true cosine of 0.1."""
    rng, blamed, seen = np.random.default_rng(0), 0, 0
    for seed in range(10):
        ds = trajectories(samples=samples, timesteps=steps, seed=seed).load()
        ds["update_gradient_cosine"][:] = rng.normal(0.25, 0.3, ds["update_gradient_cosine"].shape)
        blamed += "unrelated_update" in found(ds)
        ds["update_gradient_cosine"][:] = rng.normal(0, 0.03, ds["update_gradient_cosine"].shape)
        seen += "unrelated_update" in found(ds)
    assert blamed == 0
    assert seen >= 8


@pytest.mark.parametrize(("samples", "steps"), [(8, 4), (64, 4), (4, 4), (64, 30)])
def test_single_samples_below_a_noisy_threshold_are_no_finding(samples, steps):
    """With a true mean of 0.15 and a threshold of 0.05, two of four steps are often below it."""
    rng, blamed = np.random.default_rng(0), 0
    for seed in range(10):
        ds = trajectories(samples=samples, timesteps=steps, seed=seed).load()
        ds["reference_cosine"][:] = rng.normal(0.15, 0.15, ds["reference_cosine"].shape)
        blamed += "misaligned" in found(ds)
    assert blamed <= 1


def test_a_guide_that_believes_to_the_end_is_not_undone():
    ds = trajectories("adversarial").drop_vars("own_prediction")
    assert "undone" not in found(ds)
    assert "own_prediction is not in this store" in untested(ds)["undone"]


@pytest.mark.parametrize("written", [12, 24, 40])
def test_the_written_samples_of_a_store_are_tested(written):
    """Findings over timesteps used to need half of all planned samples."""
    ds = trajectories("white_noise").load()
    there = ds["sample"] < written
    part = ds.map(lambda v: v.where(there) if "sample" in v.dims and v.dtype.kind == "f" else v, keep_attrs=True)
    part["written"] = ds["written"].where(there, 0)
    for name in ("judge_prediction", "own_prediction"):
        part[name] = ds[name].where(there, -1)
    alone = ds.isel(sample=slice(0, written))
    assert {n: (f.samples, f.effect) for n, f in found(part).items()} == {
        n: (f.samples, pytest.approx(f.effect)) for n, f in found(alone).items()
    }
    assert found(part)["unstable"].samples == written


def test_against_prior_follows_the_sign_of_the_scale():
    ds = trajectories().load()
    ds["score_cosine"][:] = -0.5
    ds["shift_direction_cosine"] = -ds["shift_direction_cosine"]
    away = ds.assign_coords(guidance_scale=[-0.3])
    assert found(away) == {}
    away["score_cosine"] = -away["score_cosine"]
    assert set(found(away)) == {"against_prior"}


@pytest.mark.parametrize("fault", ["none", "non_finite", "white_noise", "undone", "collapsed", "half_mislabelled"])
def test_findings_do_not_depend_on_the_order_of_dimensions(fault):
    ds = trajectories(fault)
    assert find(ds.transpose("timestep", "sample", ...)) == find(ds)


def test_signatures_that_cannot_be_tested_say_why():
    ds = trajectories()
    assert "need two samples" not in str(untested(ds))
    assert (
        untested(ds.isel(sample=[0]))["vanishing"] == "a mean and its interval need two samples, and the store has one"
    )
    once = ds.assign_attrs(configuration=json.dumps({"guidance": {"interval": [0, 1]}}))
    assert untested(once)["exploding"] == "at least two guided timesteps are necessary, and the store has 1"
    still = ds.assign_coords(sigma=ds["sigma"] * 0)
    assert untested(still)["vanishing"].startswith("sigma is 0 at every timestep")
    assert "compares stabilisers with `none`" in untested(ds)["over_regularised"]
    assert "over_regularised" not in untested(stabilised(0.9))
    assert "coverage_floor is not in this store" in untested(ds.drop_vars("coverage_floor"))["collapsed"]
    bare = ds[[name for name, variable in ds.data_vars.items() if "channel" not in variable.dims]]
    assert untested(bare)["vanishing"].startswith("this dataset does not hold the number of elements of a sample")
    for less in (ds.isel(sample=[0]), once, still, ds.drop_vars("coverage_interval"), bare):
        assert {f.severity for f in find(less)} <= {"remark"}


def test_gradients_far_apart_early_on_are_not_called_unstable():
    """Most geometric timesteps lie near the end, where few gradients are compared."""
    times = np.unique(np.geomspace(1, 999, 20).astype(int))[::-1]
    ds = trajectories(timesteps=50).isel(timestep=slice(0, len(times))).assign_coords(timestep=times)
    assert "timesteps apart and can be compared up to 54" in untested(ds)["unstable"]


def test_stabilisers_that_change_nothing_are_not_blamed():
    """With 24 stabilisers and kernel distances, 17 % of the runs used to have a finding."""
    rng, blamed = np.random.default_rng(0), 0
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
    base = trajectories(samples=128, timesteps=2).load()
    for _ in range(10):
        cells = [base.assign_coords(stabilizer=[name]) for name in ("none", *(f"s{k}" for k in range(24)))]
        ds = xr.concat(cells, "stabilizer", join="outer")
        right = rng.random(ds["judge_prediction"].shape) < 0.8
        ds["judge_prediction"][:] = np.where(right, ds["label"].values, (ds["label"].values + 1) % 4)
        distance = rng.normal(size=(1, 1, 25, 1))
        replicates = distance[..., None] + rng.normal(size=(1, 1, 25, 1, 200))
        ds = ds.assign(kd_x=(dims, distance), kd_x_replicates=((*dims, "replicate"), replicates))
        blamed += "over_regularised" in found(ds)
    assert blamed <= 1


def test_negative_scales_need_not_reach_the_class():
    for fault in ("adversarial", "vanishing", "saturated", "classes_gone", "undone", "convinced", "collapsed"):
        ds = trajectories(fault).assign_coords(guidance_scale=[-0.3])
        ds["shift_direction_cosine"] = -ds["shift_direction_cosine"]
        assert found(ds) == {}, fault
    assert set(found(trajectories().assign_coords(guidance_scale=[-0.3]))) == {"misdirected"}
    assert "unstable" in found(trajectories("white_noise").assign_coords(guidance_scale=[-0.3]))


@pytest.mark.parametrize(("steps", "testable"), [(5, False), (8, False), (18, False), (20, True), (250, True)])
def test_gradients_far_apart_are_not_called_unstable(steps, testable):
    ds = trajectories("white_noise", timesteps=steps, samples=16)
    assert ("unstable" in found(ds)) == testable
    assert ("unstable" not in untested(ds)) == testable
    if not testable:
        assert untested(ds)["unstable"] == (
            f"gradients are {1000 // steps} timesteps apart and can be compared up to 54: record with more steps "
            "(num_inference_steps from 19)"
        )


def test_every_signature_has_a_fault_or_a_test_of_its_own():
    tested = {SIGNATURE.get(fault, fault) for fault in FAULTS} | NOISE | {"over_regularised", "against_prior"}
    assert {curve.name for curve in CURVES} | set(OTHERS) <= tested


def test_no_more_than_one_healthy_run_in_twenty_has_a_finding():
    """8 cells with statistics at the thresholds of several signatures; each alone would have a finding in 2.5 %."""
    alarmed = 0
    for seed in range(10):
        rng = np.random.default_rng(seed)
        parts = []
        for k in range(8):
            cell = trajectories(seed=1000 + 8 * seed + k, samples=16, timesteps=30).load()
            shape = cell["gradient_lag_cosine"].shape
            own = rng.normal(size=(*shape[:-1], 1))  # one value per sample, for its whole run
            cell["gradient_lag_cosine"][:] = 0.4 + 0.1 * own
            cell["reference_cosine"][:] = 0.05 + 0.1 * own
            cell["score_cosine"][:] = -0.2 + 0.1 * own
            cell["gradient_snr"][:] = 2 * 10 ** (0.1 * own)
            cell["high_frequency_share"][:] = 0.5 + 0.1 * own
            parts.append(cell.assign_coords(stabilizer=[f"s{k}"]))
        ds = xr.concat(parts, "stabilizer", join="outer")
        alarmed += any(f.severity != "remark" and "single samples" not in f.evidence for f in find(ds))
    assert alarmed <= 2


def test_non_finite_gradients_are_counted_where_they_are():
    ds = trajectories("non_finite")
    finding = found(ds)["non_finite"]
    bad = ~np.isfinite(ds["gradient"].values).all(axis=(-1, -2, -3)).squeeze()
    assert finding.affected == bad.any(axis=1).sum() == 8
    times = ds["timestep"].values[bad.any(axis=0)]
    assert (finding.first_timestep, finding.last_timestep) == (times[0], times[-1])
    interval = binomtest(8, 64).proportion_ci(method="wilson")
    assert (finding.low, finding.high) == pytest.approx((interval.low, interval.high))
    assert f"{bad.sum()} gradients of 8 samples" in finding.evidence


def test_non_finite_gradients_are_found_in_cells_with_further_dimensions():
    ds = trajectories("non_finite")
    ds = ds.expand_dims(method=["mine"]).assign_attrs(cell_dims=[*CELL_DIMS, "method"])
    assert found(ds)["non_finite"].cell["method"] == "mine"


def test_non_finite_gradients_name_the_model_they_came_from():
    ds = trajectories("non_finite").load()
    bad = ds["finite_fraction"] < 1
    ds["nonfinite_source"] = xr.where(bad, SOURCES.index("denoiser"), 0).astype(np.int8)
    assert f"they came from the denoiser ({int(bad.sum())})" in found(ds)["non_finite"].evidence


def test_exploding_begins_where_the_norm_has_grown_a_thousandfold():
    ds = trajectories("exploding")
    norm = ds["gradient_norm"].squeeze().values
    growth = np.log10(norm / np.median(norm[:, :12], axis=1, keepdims=True)).mean(axis=0)
    finding = found(ds)["exploding"]
    begins = ds["timestep"].values[np.argmax(growth > 3)]
    assert finding.first_timestep in (begins, begins - 20)  # the lower bound may cross it one step later
    assert finding.last_timestep == 0


def test_the_effect_of_unstable_is_the_mean_cosine_of_the_run():
    ds = trajectories("white_noise")
    finding = found(ds)["unstable"]
    assert finding.effect == pytest.approx(np.nanmean(ds["gradient_lag_cosine"].values))
    compared = ds["timestep"].values[np.isfinite(ds["gradient_lag_cosine"].values).all(axis=(0, 1, 2, 3, 4))]
    assert (finding.first_timestep, finding.last_timestep) == (compared[0], compared[-1])


def test_a_run_must_last():
    """A run needs a quarter of the 28 timesteps at which gradients are compared."""
    ds = trajectories().load()
    compared = np.flatnonzero(np.isfinite(ds["gradient_lag_cosine"].values).all(axis=(0, 1, 2, 3, 4)))
    ds["gradient_lag_cosine"][..., compared] = 0.7
    ds["gradient_lag_cosine"][..., compared[5:11]] = 0.1
    assert found(ds) == {}
    ds["gradient_lag_cosine"][..., compared[11]] = 0.1
    first, last = ds["timestep"].values[compared[[5, 11]]]
    assert (found(ds)["unstable"].first_timestep, found(ds)["unstable"].last_timestep) == (first, last)


def test_a_statistic_that_few_samples_have_is_no_finding():
    ds = trajectories("white_noise").load()
    ds["gradient_lag_cosine"][..., 20:, :] = np.nan
    assert "unstable" not in found(ds)


def test_the_effect_of_adversarial_is_the_transfer_ratio():
    ds = trajectories("adversarial")
    finding = found(ds)["adversarial"]
    own, judge = ((ds[f"{name}_prediction"] == ds["label"]).mean().item() for name in ("own", "judge"))
    assert finding.effect == pytest.approx((judge - 0.25) / (own - 0.25))
    assert finding.severity == "alarm"
    assert finding.affected == round(64 * (own - judge))


def test_samples_without_a_verdict_are_left_out_of_the_transfer_ratio():
    ds = trajectories("adversarial").drop_vars("predicted_class").load()
    ds["own_prediction"][dict(sample=slice(8))] = -1
    assert found(ds)["adversarial"].evidence == found(ds.isel(sample=slice(8, None)))["adversarial"].evidence


def test_early_success_that_is_lost_is_undone_and_not_adversarial():
    """Guide and judge agree on every final sample. The name used to be `adversarial`."""
    ds = trajectories("undone")
    finding = found(ds)["undone"]
    assert "adversarial" not in found(ds)
    belief = (ds["predicted_class"] == ds["label"]).squeeze()
    peak = int(belief.mean("sample").argmax())
    final = (ds["own_prediction"] == ds["label"]).squeeze()
    assert finding.affected == int((belief.isel(timestep=peak) & ~final).sum())
    assert finding.effect == pytest.approx(float(belief.isel(timestep=peak).mean() - final.mean()))
    assert finding.first_timestep == ds["timestep"].values[peak]
    assert "undone" not in found(trajectories(accuracy=0.75))


def accurate(hits, samples=64):
    ds = trajectories(samples=samples).load()
    label = ds["label"].values
    seen = np.where(np.arange(samples) < hits, label, (label + 1) % 4)
    for name in ("own_prediction", "judge_prediction"):
        ds[name][:] = seen
    ds["predicted_class"][:] = seen[:, None]
    return ds


def test_ineffective_needs_evidence():
    """Without evidence it is only a remark about too few samples."""
    few = found(accurate(0, samples=4))["ineffective"]
    assert few.severity == "remark"
    assert few.evidence.startswith("insufficient samples to distinguish accuracy from chance: the judge sees")
    assert found(accurate(6))["ineffective"].severity == "alarm"
    assert found(accurate(16))["ineffective"].severity == "remark"
    assert "ineffective" not in found(accurate(30))


def test_a_true_accuracy_of_a_third_is_hardly_ever_called_ineffective():
    """52 % of the runs with 64 samples used to have an alarm."""
    hits = np.random.default_rng(0).binomial(64, 0.35, 30)
    findings = [found(accurate(k)).get("ineffective") for k in hits]
    assert sum(f is not None and f.severity == "alarm" for f in findings) == 0


def test_ineffective_by_the_unguided_control():
    """A quarter is right with and without guidance; paired, 64 samples suffice to show this."""
    both = xr.concat([accurate(16).assign_coords(guidance_scale=[0.0]), accurate(16)], "guidance_scale", join="outer")
    finding = found(both)["ineffective"]
    assert finding.severity == "alarm"
    assert "against the unguided control it changes by +0.00" in finding.evidence
    both["judge_prediction"][..., 0, :] = (both["label"].values + 1) % 4
    assert found(both)["ineffective"].severity == "remark"


def test_collapse_needs_samples_that_are_right():
    assert found(trajectories("collapsed"))["collapsed"].threshold == pytest.approx(0.475)
    wrong = trajectories("collapsed").load()
    wrong["judge_prediction"][:] = (wrong["label"].values + 1) % 4
    assert "collapsed" not in found(wrong)


def stabilised(accuracy, name="smooth", samples=64):
    plain = trajectories(samples=samples)
    return xr.concat(
        [plain, trajectories(samples=samples, seed=1, accuracy=accuracy).assign_coords(stabilizer=[name])], "stabilizer"
    )


def test_over_regularised_lowers_the_accuracy():
    finding = found(stabilised(0.5))["over_regularised"]
    assert finding.severity == "alarm"
    assert finding.stabilizer == "smooth"
    assert finding.high < 0
    assert "over_regularised" not in found(stabilised(0.9))


def test_over_regularised_ignores_the_biased_distance():
    ds = stabilised(0.9)
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
    distance = np.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    ds = ds.assign(fd_x=(dims, distance), fd_x_replicates=((*dims, "replicate"), distance[..., None] + np.zeros(9)))
    assert "over_regularised" not in found(ds)


def test_over_regularised_raises_the_distance():
    ds = stabilised(0.9)
    rng = np.random.default_rng(0)
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
    distance = np.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    replicates = distance[..., None] + rng.normal(0, 0.1, (1, 1, 2, 1, 200))
    ds = ds.assign(kd_x=(dims, distance), kd_x_replicates=((*dims, "replicate"), replicates))
    finding = found(ds)["over_regularised"]
    assert finding.severity == "warning"
    assert finding.effect == pytest.approx(2.0)
    spread = replicates[0, 0, 1, 0] - replicates[0, 0, 0, 0]
    low, high = 2 + np.quantile(spread - spread.mean(), [0.025, 0.975])
    assert (finding.low, finding.high) == pytest.approx((low, high))


def test_too_few_samples_give_no_p():
    finding = found(stabilised(0.2, samples=32))["over_regularised"]
    assert finding.severity == "warning"
    assert "insufficient samples: 32 of 64" in finding.evidence


def test_a_lasting_negative_score_cosine_is_against_prior():
    ds = trajectories().load()
    ds["score_cosine"][:] = -0.5
    assert found(ds)["against_prior"].effect == pytest.approx(-0.5)


def test_only_guided_timesteps_count():
    ds = trajectories("white_noise")
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [0, 400]}})
    assert 340 < found(ds)["unstable"].first_timestep < 400
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [5000, 6000]}})
    assert "unstable" not in found(ds)


def test_controls_are_tested_for_non_finite_gradients_only():
    assert found(trajectories("white_noise").assign_coords(guidance_scale=[0.0])) == {}
    assert set(found(trajectories("non_finite").assign_coords(guidance_scale=[0.0]))) == {"non_finite"}


def test_timesteps_that_are_not_written_do_not_count():
    ds = trajectories("white_noise").load()
    late = xr.DataArray(np.arange(50) >= 25, dims="timestep")
    for name in ("gradient_lag_cosine", "gradient_norm", "log_prob"):
        ds[name] = ds[name].where(~late)
    ds["written"] = ds["written"].where(~late, 0)
    assert 500 <= found(ds)["unstable"].last_timestep < 540
    ds["written"] = ds["written"] * 0
    assert found(ds) == {}


def test_missing_variables_say_which_probe_records_them():
    ds = trajectories().drop_vars(["gradient_lag_cosine", "judge_prediction", "own_prediction"])
    reasons = untested(ds)
    assert "the probe `cosines` records it" in reasons["unstable"]
    assert "`gradscope evaluate STORE` adds it" in reasons["adversarial"]
    assert "inert" not in reasons
    assert found(ds) == {}


def test_the_table_is_ranked():
    first = found(trajectories("non_finite"))["non_finite"]
    second = found(trajectories("adversarial"))["adversarial"]
    third = found(trajectories("constant"))["frozen"]
    assert ranked([third, first, second]) == [second, first, third]
    frame = findings_table([second, first])
    columns = [name for name in Finding.__dataclass_fields__ if name != "further"]
    assert list(frame.columns) == columns
    assert frame["signature"].tolist() == ["adversarial", "non_finite"]
    assert list(signatures(trajectories()).columns) == columns


def test_a_single_timestep_ends_a_run_only_where_its_mean_does():
    signature = CurveSignature(
        "low", "warning", ("a",), lambda cell: cell["a"], "a", "below", 1.0, "none", sustained=0.6
    )
    spread = np.linspace(-1, 1, 9)
    for middle, steps in ((0.9, 10), (1.1, 0)):  # the interval of 0.9 reaches 1.3
        a = np.full((9, 10), 0.5) + 0.01 * spread[:, None]
        a[:, 5] = middle + 0.6 * spread
        cell = xr.Dataset(
            {"a": (("sample", "timestep"), a)},
            coords={"timestep": np.arange(10)[::-1], "label": ("sample", np.zeros(9, dtype=int))},
            attrs={"classes": ["0"]},
        )
        where = {"classifier": "c", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 1.0}
        found = signature.look(cell, where, np.ones(10, dtype=bool))
        assert [f"{steps} of 10 steps" in f.evidence for f in found] == ([True] if steps else [])


@pytest.mark.parametrize(
    ("flags", "run"), [([], (0, 0)), ([0, 0], (0, 0)), ([1], (0, 1)), ([0, 1, 1, 0, 1], (1, 3)), ([1, 0, 1], (0, 1))]
)
def test_longest_run(flags, run):
    got = longest_run(np.array(flags, dtype=bool))
    assert (got.start, got.stop) == run


def test_leverage_is_the_norm_in_units_of_the_steps_noise():
    cell = xr.Dataset(
        {"gradient_norm": ("timestep", [2.0, 2.0])}, coords={"sigma": ("timestep", [0.5, 0.0])}, attrs={"elements": 9}
    )
    np.testing.assert_array_equal(leverage(cell).values, [3.0, np.nan])


def test_a_constant_statistic_needs_no_spread():
    signature = CurveSignature("flat", "warning", ("a",), lambda cell: cell["a"], "a", "above", 1.0, "none")
    cell = xr.Dataset({"a": (("sample", "timestep"), np.full((4, 8), 2.0))}, coords={"timestep": np.arange(8)[::-1]})
    where = {"classifier": "c", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 1.0}
    cell = cell.assign_coords(label=("sample", [0, 0, 0, 0])).assign_attrs(classes=["0"])
    (finding,) = signature.look(cell, where, np.ones(8, dtype=bool))
    assert (finding.effect, finding.low, finding.high, finding.affected) == (2.0, 2.0, 2.0, 4)


def test_exact_guidance_of_a_mixture_is_healthy(tmp_path):
    """Sampler, probes, store and judge, on a model whose noise prediction and posterior have a closed form."""
    settings = ["sampling.samples=64", "sampling.num_inference_steps=40", "recording.tensor_samples=1"]
    config = load(RunConfig, "mixture.yaml", [*settings, "stabilizers={none: {}}"])
    run = prepare(config, "cpu", str(tmp_path / "mixture.zarr"))
    outcome = record_run(run)
    ds = gradscope.open(outcome.path)
    images = torch.from_numpy(ds["image"].values).flatten(0, -4)
    verdict = mixture.judge()(images).argmax(dim=1).numpy().reshape(ds["image"].shape[:-3])
    ds["judge_prediction"] = (ds["image"].dims[:-3], verdict)
    assert (ds["judge_prediction"] == ds["label"]).sel(guidance_scale=0.3).mean() > 0.9
    assert [f.signature for f in find(ds) if f.severity == "alarm"] == []


def test_samples_recorded_after_the_evaluation_are_not_counted_as_wrong():
    ds = stabilised(0.9).load()
    ds["judge_prediction"][..., 1, :, 32:] = -1  # the stabiliser's later samples have no verdict
    assert "over_regularised" not in found(ds)
    assert gradscope.compare(ds, {"stabilizer": "none"}, {"stabilizer": "smooth"}).accuracy.n == 32
