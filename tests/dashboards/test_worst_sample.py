"""The worst sample of a finding, found by other means."""

import numpy as np
import small_store

from dashboards.data.open_run import OpenRun
from dashboards.pages.overview.worst_sample import worst_sample
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories

ELEMENTS = 3 * 8 * 8


def test_the_worst_sample_of_an_outcome_is_one_that_the_judge_gets_wrong(run):
    ds = small_store.evaluated()
    outcomes = [f for f in run.findings() if f.signature in ("ineffective", "adversarial", "over_regularised")]
    assert outcomes
    for finding in outcomes:
        at = worst_sample(ds, finding, ELEMENTS)
        judge = ds["judge_prediction"].sel(finding.cell).values
        wrong = [i for i in range(small_store.TENSORS) if judge[i] != ds["label"].values[i] and judge[i] >= 0]
        certain = ds["log_prob"].sel(finding.cell).mean("timestep").values
        if finding.first_timestep is None:
            assert at == (int(ds["timestep"][-1]), max(wrong, key=lambda i: certain[i]))
        else:
            assert at.timestep == finding.first_timestep
            assert at.sample in wrong


def faulty(fault, tmp_path, change=lambda ds: ds) -> OpenRun:
    """A run of one cell with a known fault and a healthy control."""
    parts = [trajectories(f, 64, 20, seed).assign_coords(guidance_scale=[scale]) for seed, (f, scale) in
             enumerate([("none", 0.0), (fault, 0.3)])]  # fmt: skip
    ds = parts[0].combine_first(parts[1]).assign_coords(sample=range(64)).assign_attrs(small_store.ATTRIBUTES)
    integers = ("written", "predicted_class", "own_prediction", "judge_prediction")
    whole = {name: ds[name].astype(parts[0][name].dtype) for name in integers}
    return OpenRun(small_store.save(change(ds.assign(whole)), tmp_path / "a.zarr"))


def test_the_worst_sample_of_non_finite_gradients_is_at_the_first_of_them(tmp_path):
    run = faulty("non_finite", tmp_path)
    finding = next(f for f in run.findings() if f.signature == "non_finite")
    at = worst_sample(run.scalars(), finding, ELEMENTS)
    gradient = run.ds["gradient"].sel(finding.cell).isel(sample=at.sample)
    bad = ~np.isfinite(gradient).all(("channel", "height", "width")).values
    assert at.sample % 8 == 0
    assert at.timestep == run.ds["timestep"].values[bad.argmax()]


def test_a_statistic_that_needs_the_number_of_elements(tmp_path):
    run = faulty("vanishing", tmp_path)
    finding = next(f for f in run.findings() if f.signature == "vanishing")
    at = worst_sample(run.scalars(), finding, ELEMENTS)
    log_prob = run.ds["log_prob"].sel(finding.cell).isel(sample=at.sample)
    assert float(log_prob.max()) < np.log(0.9)


def test_the_timestep_has_tensors(tmp_path):
    def seldom(ds):
        kept = (ds["sample"] >= 2) & (ds["sample"] < 6) & (ds["step"] % 7 == 0)
        return ds.assign(written=ds["written"].where(kept, 1).astype(np.uint8))

    run = faulty("white_noise", tmp_path, lambda ds: seldom(ds.assign_coords(step=("timestep", range(20)))))
    finding = next(f for f in run.findings() if f.signature == "unstable")
    at = worst_sample(run.scalars(), finding, ELEMENTS)
    assert 2 <= at.sample < 6
    kept = run.ds["timestep"].values[::7]
    assert at.timestep == max(t for t in kept if finding.last_timestep <= t <= finding.first_timestep)


def test_a_store_without_tensors_has_a_worst_sample(tmp_path):
    run = faulty("white_noise", tmp_path, lambda ds: ds.assign(written=ds["written"].clip(max=1)))
    finding = next(f for f in run.findings() if f.signature == "unstable")
    cosine = run.ds["gradient_cosine"].sel(finding.cell)
    within = cosine.where((cosine.timestep <= finding.first_timestep) & (cosine.timestep >= finding.last_timestep))
    worst = int(within.mean("timestep").argmin("sample"))
    assert worst_sample(run.scalars(), finding, ELEMENTS) == (finding.first_timestep, worst)


def test_the_worst_sample_of_an_unrelated_update_has_the_smallest_cosine():
    ds = trajectories("unrelated_update").drop_vars(["judge_prediction", "own_prediction"])
    (finding,) = find(ds)
    at = worst_sample(ds, finding, 192)
    means = ds["update_gradient_cosine"].squeeze().mean("timestep")
    assert at.sample == int(means.argmin())


def test_the_worst_sample_of_a_class_is_of_that_class():
    ds = trajectories("class_vanishing")
    for finding in find(ds):
        assert int(ds["label"][worst_sample(ds, finding, 192).sample]) == int(finding.target_class)
