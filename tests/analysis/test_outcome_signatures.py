"""Signatures of the outcome: non-finite gradients, and final samples."""

import numpy as np
import pytest
import xarray as xr
from faulty_cells import accurate, found
from scipy.stats import binomtest

from gradscope.analysis.signatures import find, untested
from gradscope.analysis.synthetic import trajectories
from gradscope.store import CELL_DIMS
from probes import SOURCES


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


def test_ineffective_needs_evidence():
    """Without evidence it is only a remark about too few samples."""
    few = found(accurate(0, samples=4))["ineffective"]
    assert few.severity == "remark"
    assert few.evidence.startswith("insufficient samples to distinguish accuracy from chance: the judge sees")
    assert found(accurate(6))["ineffective"].severity == "alarm"
    assert found(accurate(16))["ineffective"].severity == "remark"
    assert "ineffective" not in found(accurate(30))


@pytest.mark.slow
def test_a_true_accuracy_of_a_third_is_hardly_ever_called_ineffective():
    """52 % of the runs with 64 samples used to have an alarm."""
    hits = np.random.default_rng(0).binomial(64, 0.35, 30)
    findings = [found(accurate(k)).get("ineffective") for k in hits]
    assert sum(f is not None and f.severity == "alarm" for f in findings) == 0


def test_ineffective_by_the_unguided_control():
    """A quarter is right with and without guidance; paired, 64 samples suffice to show this."""
    both = xr.concat(
        [accurate(16).assign_coords(guidance_scale=[0.0]), accurate(16)],
        "guidance_scale",
        data_vars="all",
        join="outer",
    )
    finding = found(both)["ineffective"]
    assert finding.severity == "alarm"
    assert "against the unguided control it changes by +0.00" in finding.evidence
    both["judge_prediction"][..., 0, :] = (both["label"].values + 1) % 4
    assert found(both)["ineffective"].severity == "remark"


def test_accuracy_means_nothing_with_a_single_class():
    ds = accurate(64).assign_attrs(classes=["a"]).assign_coords(label=("sample", np.zeros(64, dtype=int)))
    zeros = {name: xr.zeros_like(ds[name]) for name in ("judge_prediction", "own_prediction", "predicted_class")}
    assert found(ds.assign(zeros)) == {}


def test_a_fault_of_a_class_names_it():
    vanishing = [f for f in find(trajectories("class_vanishing")) if f.signature == "vanishing"]
    assert [(f.target_class, f.affected, f.samples) for f in vanishing] == [("0", 16, 16)]
    failing = [f for f in find(trajectories("classes_gone")) if f.signature == "class_failure"]
    assert [(f.target_class, f.effect, f.samples) for f in failing] == [("0", 0, 16), ("1", 0, 16)]


def test_collapse_needs_samples_that_are_right():
    assert found(trajectories("collapsed"))["collapsed"].threshold == pytest.approx(0.475)
    wrong = trajectories("collapsed").load()
    wrong["judge_prediction"][:] = (wrong["label"].values + 1) % 4
    assert "collapsed" not in found(wrong)


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
    peak = int(belief.mean("sample").values.argmax())
    final = (ds["own_prediction"] == ds["label"]).squeeze()
    assert finding.affected == int((belief.isel(timestep=peak) & ~final).sum())
    assert finding.effect == pytest.approx(float(belief.isel(timestep=peak).mean() - final.mean()))
    assert finding.first_timestep == ds["timestep"].values[peak]
    assert "undone" not in found(trajectories(accuracy=0.75))


def test_a_guide_that_believes_to_the_end_is_not_undone():
    ds = trajectories("adversarial").drop_vars("own_prediction")
    assert "undone" not in found(ds)
    assert "own_prediction is not in this store" in untested(ds)["undone"]
