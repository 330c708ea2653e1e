"""The search for findings in a store: known faults, healthy runs, and what cannot be tested."""

import json

import numpy as np
import pytest
import torch
import xarray as xr
from faulty_cells import found, stabilised

import gradscope
from gradscope.analysis.findings import Finding, findings_table, ranked
from gradscope.analysis.signatures import CURVES, OTHERS, find, signatures, untested
from gradscope.analysis.synthetic import FAULTS, SIGNATURE, trajectories
from gradscope.config import RunConfig, load
from gradscope.models import mixture
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

NOISE = {"unstable", "noise_dominated", "high_frequency", "ineffective"}


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


@pytest.mark.slow
def test_negative_scales_need_not_reach_the_class():
    for fault in ("adversarial", "vanishing", "saturated", "classes_gone", "undone", "convinced", "collapsed"):
        ds = trajectories(fault).assign_coords(guidance_scale=[-0.3])
        ds["shift_direction_cosine"] = -ds["shift_direction_cosine"]
        assert found(ds) == {}, fault
    assert set(found(trajectories().assign_coords(guidance_scale=[-0.3]))) == {"misdirected"}
    assert "unstable" in found(trajectories("white_noise").assign_coords(guidance_scale=[-0.3]))


def test_every_signature_has_a_fault_or_a_test_of_its_own():
    tested = {SIGNATURE.get(fault, fault) for fault in FAULTS} | NOISE | {"over_regularised", "against_prior"}
    assert {curve.name for curve in CURVES} | set(OTHERS) <= tested


@pytest.mark.slow
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
        ds = xr.concat(parts, "stabilizer", data_vars="all", join="outer")
        alarmed += any(f.severity != "remark" and "single samples" not in f.evidence for f in find(ds))
    assert alarmed <= 2


def test_controls_are_tested_for_non_finite_gradients_only():
    assert found(trajectories("white_noise").assign_coords(guidance_scale=[0.0])) == {}
    assert set(found(trajectories("non_finite").assign_coords(guidance_scale=[0.0]))) == {"non_finite"}


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


@pytest.mark.slow
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
