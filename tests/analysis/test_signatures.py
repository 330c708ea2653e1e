import json

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binomtest

import gradscope
from gradscope.analysis.curve_signatures import CURVES, CurveSignature, leverage, longest_run
from gradscope.analysis.findings import Finding, ranked, table
from gradscope.analysis.signatures import OUTCOMES, find, signatures, untested
from gradscope.analysis.synthetic import FAULTS, trajectories
from gradscope.config import RunConfig, load
from gradscope.models import mixture
from gradscope.preparation import prepare
from gradscope.recording import record_run

WANTED = {
    "constant": "frozen",
    "clipped": "dead_by_clipping",
    "saturated": "saturated_early",
}


NOISE = {"unstable", "noise_dominated", "high_frequency", "ineffective"}


def found(ds):
    return {finding.signature: finding for finding in find(ds)}


@pytest.mark.parametrize("seed", [0, 1])
def test_healthy_trajectories_have_no_finding(seed):
    assert found(trajectories(seed=seed)) == {}


def test_white_noise_is_seen_by_every_look_at_it():
    assert set(found(trajectories("white_noise"))) == NOISE


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("none", "white_noise")])
def test_a_known_fault_is_found(fault):
    name = WANTED.get(fault, fault)
    finding = found(trajectories(fault, seed=2))[name]
    assert finding.low <= finding.effect <= finding.high
    assert 0 < finding.affected <= finding.samples == 64
    assert finding.advice
    assert finding.cell["classifier"] == "synthetic"


def test_every_signature_has_a_fault_or_a_test_of_its_own():
    tested = {WANTED.get(fault, fault) for fault in FAULTS} | NOISE | {"over_regularised", "against_prior"}
    assert {curve.name for curve in CURVES} | set(OUTCOMES) <= tested


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


def test_exploding_begins_where_the_norm_has_grown_a_thousandfold():
    ds = trajectories("exploding")
    norm = ds["gradient_norm"].squeeze().values
    growth = np.log10(norm / np.median(norm[:, :12], axis=1, keepdims=True)).mean(axis=0)
    finding = found(ds)["exploding"]
    begins = ds["timestep"].values[np.argmax(growth > 3)]
    assert finding.first_timestep in (begins, begins - 20)  # the interval's lower bound passes at most a step later
    assert finding.last_timestep == 0


def test_unstable_is_the_mean_cosine_of_the_run():
    ds = trajectories("white_noise")
    finding = found(ds)["unstable"]
    assert finding.effect == pytest.approx(np.nanmean(ds["gradient_cosine"].values))
    assert (finding.first_timestep, finding.last_timestep) == (960, 0)


def test_a_run_must_last():
    ds = trajectories().load()
    ds["gradient_cosine"][..., 20:31] = 0.1
    assert found(ds) == {}
    ds["gradient_cosine"][..., 20:33] = 0.1
    assert (found(ds)["unstable"].first_timestep, found(ds)["unstable"].last_timestep) == (580, 340)


def test_a_statistic_of_few_samples_is_no_finding():
    ds = trajectories("white_noise").load()
    ds["gradient_cosine"][..., 31:, :] = np.nan
    assert "unstable" not in found(ds)


def test_adversarial_by_the_final_samples_is_the_transfer_ratio():
    ds = trajectories("adversarial")
    finding = found(ds)["adversarial"]
    own, judge = ((ds[f"{name}_prediction"] == ds["label"]).mean().item() for name in ("own", "judge"))
    assert finding.effect == pytest.approx((judge - 0.25) / (own - 0.25))
    assert finding.severity == "alarm"
    assert finding.affected == round(64 * (own - judge))


def test_what_the_guide_has_no_verdict_on_is_left_out_of_the_transfer_ratio():
    ds = trajectories("adversarial").drop_vars("predicted_class").load()
    ds["own_prediction"][dict(sample=slice(8))] = -1
    assert found(ds)["adversarial"].evidence == found(ds.isel(sample=slice(8, None)))["adversarial"].evidence


def test_adversarial_by_the_guides_belief_on_its_way():
    """The final samples convince neither, but the guide believed the target in between."""
    ds = trajectories("adversarial").assign(own_prediction=lambda d: d["judge_prediction"])
    finding = found(ds)["adversarial"]
    assert "of its own input at timestep" in finding.evidence
    assert finding.first_timestep is not None
    assert finding.first_timestep > finding.last_timestep == 0


def with_control(gain):
    """A cell that the judge never sees right, beside its control; the guide never believes it right either."""
    cell = trajectories("vanishing")
    cell["gradient_norm"] = cell["gradient_norm"] * 1e12
    control = cell.assign_coords(guidance_scale=[0.0])
    return xr.concat([control, cell.assign(log_prob=cell["log_prob"] + gain)], "guidance_scale")


def test_adversarial_by_a_gain_without_the_class():
    finding = found(with_control(5.0))["adversarial"]
    assert "rises by 5 nat [5, 5], the judge's accuracy by 0.00" in finding.evidence
    assert finding.cell["guidance_scale"] == 0.3
    assert "adversarial" not in found(with_control(0.5))


def test_ineffective_only_near_chance():
    assert found(trajectories("adversarial"))["ineffective"].threshold == 0.25
    assert "ineffective" not in found(trajectories(accuracy=0.6))


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


def test_over_regularised_raises_the_distance():
    ds = stabilised(0.9)
    rng = np.random.default_rng(0)
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
    distance = np.array([1.0, 3.0]).reshape(1, 1, 2, 1)
    replicates = distance[..., None] + rng.normal(0, 0.1, (1, 1, 2, 1, 200))
    ds = ds.assign(fd_x=(dims, distance), fd_x_replicates=((*dims, "replicate"), replicates))
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


def test_against_prior_is_persistent():
    ds = trajectories().load()
    ds["score_cosine"][:] = -0.5
    assert found(ds)["against_prior"].effect == pytest.approx(-0.5)


def test_only_guided_timesteps_count():
    ds = trajectories("white_noise")
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [0, 400]}})
    assert found(ds)["unstable"].first_timestep == 380
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [5000, 6000]}})
    assert "unstable" not in found(ds)


def test_controls_are_not_examined_but_for_non_finite_gradients():
    assert found(trajectories("white_noise").assign_coords(guidance_scale=[0.0])) == {}
    assert set(found(trajectories("non_finite").assign_coords(guidance_scale=[0.0]))) == {"non_finite"}


def test_what_is_not_written_does_not_count():
    ds = trajectories("white_noise").load()
    late = xr.DataArray(np.arange(50) >= 25, dims="timestep")
    for name in ("gradient_cosine", "gradient_norm", "log_prob"):
        ds[name] = ds[name].where(~late)
    ds["written"] = ds["written"].where(~late, 0)
    assert found(ds)["unstable"].last_timestep == 500
    ds["written"] = ds["written"] * 0
    assert found(ds) == {}


def test_missing_variables_say_which_probe_records_them():
    ds = trajectories().drop_vars(["gradient_cosine", "judge_prediction", "own_prediction"])
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
    frame = table([second, first])
    assert list(frame.columns) == list(Finding.__dataclass_fields__)
    assert frame["signature"].tolist() == ["adversarial", "non_finite"]
    assert list(signatures(trajectories()).columns) == list(Finding.__dataclass_fields__)


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
    finding = signature.look(cell, where, np.ones(8, dtype=bool))
    assert (finding.effect, finding.low, finding.high, finding.affected) == (2.0, 2.0, 2.0, 4)


def test_exact_guidance_of_a_mixture_is_healthy(tmp_path):
    """Sampler, probes, store and judge, on a model whose noise prediction and posterior are in closed form."""
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
    ds["judge_prediction"][..., 1, :, 32:] = -1  # of the stabiliser, finished since
    assert "over_regularised" not in found(ds)
    assert gradscope.compare(ds, {"stabilizer": "none"}, {"stabilizer": "smooth"}).accuracy.n == 32
