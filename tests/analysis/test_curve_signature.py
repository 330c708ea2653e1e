"""Signatures over timesteps: how long a run must be, and whose means count."""

import json

import numpy as np
import pytest
import xarray as xr
from faulty_cells import found

from gradscope.analysis.curve_signature import CurveSignature, longest_run
from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories


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


def test_a_constant_statistic_needs_no_spread():
    signature = CurveSignature("flat", "warning", ("a",), lambda cell: cell["a"], "a", "above", 1.0, "none")
    cell = xr.Dataset({"a": (("sample", "timestep"), np.full((4, 8), 2.0))}, coords={"timestep": np.arange(8)[::-1]})
    where = {"classifier": "c", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 1.0}
    cell = cell.assign_coords(label=("sample", [0, 0, 0, 0])).assign_attrs(classes=["0"])
    (finding,) = signature.look(cell, where, np.ones(8, dtype=bool))
    assert (finding.effect, finding.low, finding.high, finding.affected) == (2.0, 2.0, 2.0, 4)


def test_a_fault_of_single_samples_names_them():
    """One of 64 samples explodes; no mean shows it."""
    finding = found(trajectories("one_exploding"))["exploding"]
    assert (finding.affected, finding.samples, finding.severity) == (1, 64, "warning")
    assert finding.evidence.endswith("samples 32")


@pytest.mark.slow
@pytest.mark.parametrize(("samples", "steps"), [(8, 4), (64, 4), (4, 4), (64, 30)])
def test_single_samples_below_a_noisy_threshold_are_no_finding(samples, steps):
    """With a true mean of 0.15 and a threshold of 0.05, two of four steps are often below it."""
    rng, blamed = np.random.default_rng(0), 0
    for seed in range(10):
        ds = trajectories(samples=samples, timesteps=steps, seed=seed).load()
        ds["reference_cosine"][:] = rng.normal(0.15, 0.15, ds["reference_cosine"].shape)
        blamed += "misaligned" in found(ds)
    assert blamed <= 1


def test_opposite_cosines_do_not_cancel():
    """Half of the labels are wrong, so the mean cosine with the reference is 0."""
    ds = trajectories("half_mislabelled")
    assert abs(float(ds["reference_cosine"].mean())) < 0.02
    assert {f.target_class for f in find(ds) if f.signature == "misaligned"} == {"0", "2"}
    same_labels = ds.assign_coords(label=("sample", np.zeros(64, dtype=int)))
    (alone,) = [f for f in find(same_labels) if f.signature == "misaligned"]
    assert (alone.affected, alone.target_class) == (32, "")


def test_only_guided_timesteps_count():
    ds = trajectories("white_noise")
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [0, 400]}})
    assert 340 < found(ds)["unstable"].first_timestep < 400
    ds.attrs["configuration"] = json.dumps({"guidance": {"interval": [5000, 6000]}})
    assert "unstable" not in found(ds)


def test_timesteps_that_are_not_written_do_not_count():
    ds = trajectories("white_noise").load()
    late = xr.DataArray(np.arange(50) >= 25, dims="timestep")
    for name in ("gradient_lag_cosine", "gradient_norm", "log_prob"):
        ds[name] = ds[name].where(~late)
    ds["written"] = ds["written"].where(~late, 0)
    assert 500 <= found(ds)["unstable"].last_timestep < 540
    ds["written"] = ds["written"] * 0
    assert found(ds) == {}
