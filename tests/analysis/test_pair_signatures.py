"""Signatures that compare a cell with the same cell without a stabiliser."""

import numpy as np
import pytest
import xarray as xr
from faulty_cells import found, stabilised

import gradscope
from gradscope.analysis.signatures import untested
from gradscope.analysis.synthetic import trajectories


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


def test_samples_recorded_after_the_evaluation_are_not_counted_as_wrong():
    ds = stabilised(0.9).load()
    ds["judge_prediction"][..., 1, :, 32:] = -1  # the stabiliser's later samples have no verdict
    assert "over_regularised" not in found(ds)
    assert gradscope.compare(ds, {"stabilizer": "none"}, {"stabilizer": "smooth"}).accuracy.n == 32


@pytest.mark.slow
def test_stabilisers_that_change_nothing_are_not_blamed():
    """With 24 stabilisers and kernel distances, 17 % of the runs used to have a finding."""
    rng, blamed = np.random.default_rng(0), 0
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
    base = trajectories(samples=128, timesteps=2)[["written", "judge_prediction"]].load()  # what the signature needs
    for _ in range(10):
        cells = [base.assign_coords(stabilizer=[name]) for name in ("none", *(f"s{k}" for k in range(24)))]
        ds = xr.concat(cells, "stabilizer", data_vars="all", join="outer")
        right = rng.random(ds["judge_prediction"].shape) < 0.8
        ds["judge_prediction"][:] = np.where(right, ds["label"].values, (ds["label"].values + 1) % 4)
        distance = rng.normal(size=(1, 1, 25, 1))
        replicates = distance[..., None] + rng.normal(size=(1, 1, 25, 1, 200))
        ds = ds.assign(kd_x=(dims, distance), kd_x_replicates=((*dims, "replicate"), replicates))
        assert "over_regularised" not in untested(ds)
        blamed += "over_regularised" in found(ds)
    assert blamed <= 1
