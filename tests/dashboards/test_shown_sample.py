"""The position at which a finding is shown, found by loops; extreme samples that show nothing are planted."""

import re
from dataclasses import replace

import numpy as np
import pytest
import small_store
import xarray as xr

from dashboards.data.finding_key import KEY, finding_key, finding_name, finding_of
from dashboards.data.shown_sample import needed, shown_sample
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories

ELEMENTS = 3 * 8 * 8


def faulty(fault, change=lambda ds: ds) -> xr.Dataset:
    """A cell with a known fault and a healthy control, without tensors."""
    parts = [trajectories(f, 64, 20, seed).assign_coords(guidance_scale=[scale]) for seed, (f, scale) in
             enumerate([("none", 0.0), (fault, 0.3)])]  # fmt: skip
    ds = parts[0].combine_first(parts[1]).assign_coords(sample=range(64)).assign_attrs(small_store.ATTRIBUTES)
    integers = ("written", "predicted_class", "own_prediction", "judge_prediction")
    whole = {name: ds[name].astype(parts[0][name].dtype) for name in integers}
    return change(ds.assign(whole))


def the(ds: xr.Dataset, signature: str):
    return next(finding for finding in find(ds) if finding.signature == signature)


def values(ds: xr.Dataset, finding, name: str) -> np.ndarray:
    """One variable of the finding's cell, ``(sample)`` or ``(sample, timestep)``."""
    return ds[name].sel(finding.cell).transpose("sample", ...).values


def steps_of(ds: xr.Dataset, finding) -> list[int]:
    timesteps = ds["timestep"].values
    if finding.first_timestep is None:
        return list(range(len(timesteps)))
    return [k for k, t in enumerate(timesteps) if finding.last_timestep <= t <= finding.first_timestep]


@pytest.mark.slow
def test_extreme_samples_that_show_nothing_are_not_chosen():
    """Of the lowest cosines, one has a norm of 1e-12, one of 0, one of 1e9; the next one is shown."""

    def plant(ds):
        at = {"guidance_scale": 1}
        for sample, cosine, norm in [(5, -0.99, 1e-12), (6, -0.98, 0.0), (7, -0.97, 1e9), (9, -0.96, None)]:
            ds["gradient_lag_cosine"][at | {"sample": sample, "timestep": 11}] = cosine
            if norm is not None:
                ds["gradient_norm"][at | {"sample": sample, "timestep": 11}] = norm
        ds["gradient_lag_cosine"][at | {"sample": 3, "timestep": 11}] = np.nan
        return ds

    ds = faulty("white_noise", plant)
    finding = the(ds, "unstable")
    cosine, norm = values(ds, finding, "gradient_lag_cosine"), values(ds, finding, "gradient_norm")
    middle = np.median([n for n in norm.ravel() if np.isfinite(n) and n > 0])
    best, count = None, 0
    for k in steps_of(ds, finding):
        for sample in range(64):
            if cosine[sample, k] < finding.threshold and middle / 3 <= norm[sample, k] <= 3 * middle:
                count += 1
                if best is None or cosine[sample, k] < cosine[best]:
                    best = sample, k
    shown = shown_sample(ds, finding, ELEMENTS)
    assert best == (9, 11)
    assert (shown.sample, shown.timestep) == (9, int(ds["timestep"][11]))
    assert shown.place == f"sample 9 at t = {shown.timestep}"
    assert shown.why == (
        f"the lowest statistic, -0.96 (threshold: below {finding.threshold:.3g}), among {count} candidates; its "
        f"gradient norm, {norm[9, 11]:.3g}, is within a factor of 3 of the cell's median, {middle:.3g}"
    )


def test_the_nearest_norm_is_shown_where_none_is_ordinary():
    """Only sample 4 is below the threshold, at two steps with small norms."""

    def plant(ds):
        at = {"guidance_scale": 1}
        ds["gradient_lag_cosine"][at] = 0.1
        ds["gradient_lag_cosine"][at | {"sample": 4}] = -0.5
        ds["gradient_norm"][at | {"sample": 4}] = 1e-9
        ds["gradient_norm"][at | {"sample": 4, "timestep": 12}] = 1e-6
        return ds

    ds = faulty("white_noise", plant)
    finding = the(ds, "unstable")
    shown = shown_sample(ds, replace(finding, threshold=0.0), ELEMENTS)
    assert (shown.sample, shown.timestep) == (4, int(ds["timestep"][12]))
    assert "its gradient norm, 1e-06, is the nearest to the cell's median" in shown.why
    assert "the only candidate" in shown.why


def test_an_outcome_is_shown_where_the_guide_is_certain_and_the_judge_disagrees(run):
    ds = small_store.evaluated()
    outcomes = [f for f in run.findings() if f.signature in ("ineffective", "adversarial", "over_regularised")]
    assert outcomes
    for finding in outcomes:
        judge, label = values(ds, finding, "judge_prediction"), ds["label"].values
        certain, norm = values(ds, finding, "log_prob"), values(ds, finding, "gradient_norm")
        middle = np.median(norm[np.isfinite(norm) & (norm > 0)])
        timesteps = ds["timestep"].values
        possible = [
            (certain[sample, k], -k, -sample)
            for sample in range(small_store.TENSORS)
            for k in range(len(timesteps))
            if judge[sample] >= 0 and judge[sample] != label[sample] and middle / 3 <= norm[sample, k] <= 3 * middle
            if finding.first_timestep is None or finding.last_timestep <= timesteps[k] <= finding.first_timestep
        ]
        _, step, sample = max(possible)
        shown = shown_sample(needed(run), finding, ELEMENTS)
        assert (shown.sample, shown.timestep) == (-sample, timesteps[-step])
        assert shown.why.startswith(
            f"the guide is most certain of the target, and the judge disagrees, among {len(possible)} "
        )


def test_the_first_gradient_that_is_not_finite_is_shown():
    ds = faulty("non_finite")
    finding = the(ds, "non_finite")
    shown = shown_sample(ds, finding, ELEMENTS)
    gradient = ds["gradient"].sel(finding.cell)
    bad = ~np.isfinite(gradient).all(("channel", "height", "width")).transpose("timestep", "sample").values
    step, sample = np.argwhere(bad)[0]
    assert (shown.sample, shown.timestep) == (sample, ds["timestep"].values[step])
    assert shown.why == "the first gradient that is not finite"


def test_a_vanishing_gradient_is_shown_at_the_usual_norm_of_its_timesteps():
    ds = faulty("vanishing")
    finding = the(ds, "vanishing")
    shown = shown_sample(ds, finding, ELEMENTS)
    norm, log_prob = values(ds, finding, "gradient_norm"), values(ds, finding, "log_prob")
    inside = norm[:, steps_of(ds, finding)]
    middle = np.median(inside[inside > 0])
    step = ds["timestep"].values.tolist().index(shown.timestep)
    assert log_prob[shown.sample, step] < np.log(0.9)
    assert middle / 3 <= norm[shown.sample, step] <= 3 * middle
    assert f"within a factor of 3 of the median of the finding's timesteps, {middle:.3g}" in shown.why


def test_the_position_has_tensors():
    def seldom(ds):
        kept = (ds["sample"] >= 2) & (ds["sample"] < 6) & (ds["step"] % 7 == 0)
        return ds.assign(written=ds["written"].where(kept, 1).astype(np.uint8))

    ds = faulty("white_noise", lambda ds: seldom(ds.assign_coords(step=("timestep", range(20)))))
    finding = the(ds, "unstable")
    shown = shown_sample(ds, finding, ELEMENTS)
    assert 2 <= shown.sample < 6
    step = ds["timestep"].values.tolist().index(shown.timestep)
    assert step in set(steps_of(ds, finding)) & {0, 7, 14}
    assert values(ds, finding, "gradient_lag_cosine")[shown.sample, step] < finding.threshold


def test_a_store_without_tensors_has_a_position():
    ds = faulty("white_noise", lambda ds: ds.assign(written=ds["written"].clip(max=1)))
    finding = the(ds, "unstable")
    shown = shown_sample(ds, finding, ELEMENTS)
    steps = steps_of(ds, finding)
    cosine, norm = values(ds, finding, "gradient_lag_cosine"), values(ds, finding, "gradient_norm")
    middle = np.median(norm)
    apart = np.where((norm >= middle / 3) & (norm <= 3 * middle), cosine, np.inf)[:, steps]
    sample, k = np.unravel_index(apart.argmin(), apart.shape)
    assert (shown.sample, shown.timestep) == (sample, ds["timestep"].values[steps[k]])


def test_an_unrelated_update_is_shown_at_the_smallest_cosine():
    ds = trajectories("unrelated_update").drop_vars(["judge_prediction", "own_prediction"])
    (finding,) = find(ds)
    shown = shown_sample(ds, finding, 192)
    cosine = ds["update_gradient_cosine"].squeeze().transpose("sample", "timestep").sel(timestep=shown.timestep).values
    assert cosine[shown.sample] < finding.threshold
    assert f"the lowest statistic, {cosine[shown.sample]:.3g} (threshold: below" in shown.why


def test_a_class_is_shown_by_its_own_samples():
    ds = trajectories("class_vanishing")
    for finding in find(ds):
        assert int(ds["label"][shown_sample(ds, finding, 192).sample]) == int(finding.target_class)


def test_a_store_without_a_judge_and_a_norm_has_a_position():
    """A finding of a signature that is not known here, as those of watched loops."""
    ds = faulty("white_noise", lambda ds: ds.drop_vars(["judge_prediction", "gradient_norm", "update_norm"]))
    finding = replace(the(ds, "unstable"), signature="not_at_x_t")
    shown = shown_sample(ds, finding, ELEMENTS)
    assert 0 <= shown.sample < 64
    assert "norm" not in shown.why


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["white_noise", "class_vanishing"])
def test_a_key_names_its_finding(fault, opened):
    run = opened(faulty(fault))
    keys = [finding_key(run, finding) for finding in run.findings()]
    assert len(set(keys)) == len(keys) > 0
    for key, finding in zip(keys, run.findings(), strict=True):
        assert re.fullmatch(KEY, key)
        assert finding_of(run, key) is finding
        number, signature, *_ = key.split(".")
        assert dict(run.cells[int(number)]) == finding.cell
        assert signature == finding.signature
        assert (f"class {finding.target_class}" in finding_name(finding)) == bool(finding.target_class)
    assert finding_of(run, "0.nothing") is None
