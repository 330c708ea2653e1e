"""Signatures of the directions of gradient, update and shift."""

import numpy as np
import pytest
from faulty_cells import found

from gradscope.analysis.signatures import untested
from gradscope.analysis.synthetic import trajectories


def test_the_effect_of_unstable_is_the_mean_cosine_of_the_run():
    ds = trajectories("white_noise")
    finding = found(ds)["unstable"]
    assert finding.effect == pytest.approx(np.nanmean(ds["gradient_lag_cosine"].values))
    compared = ds["timestep"].values[np.isfinite(ds["gradient_lag_cosine"].values).all(axis=(0, 1, 2, 3, 4))]
    assert (finding.first_timestep, finding.last_timestep) == (compared[0], compared[-1])


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


def test_gradients_far_apart_early_on_are_not_called_unstable():
    """Most geometric timesteps lie near the end, where few gradients are compared."""
    times = np.unique(np.geomspace(1, 999, 20).astype(int))[::-1]
    ds = trajectories(timesteps=50).isel(timestep=slice(0, len(times))).assign_coords(timestep=times)
    assert "timesteps apart and can be compared up to 54" in untested(ds)["unstable"]


def test_an_update_may_lag_behind_its_gradient_but_not_oppose_it():
    """ADAM's means are 0.25 to 0.44; a quarter of the steps below 0 is too much."""
    ds = trajectories().load()
    ds["update_gradient_cosine"][:] = 0.25
    assert found(ds) == {}
    ds["update_gradient_cosine"][..., 4::5] = -0.1  # 10 of 50
    assert found(ds) == {}
    ds["update_gradient_cosine"][..., 3::4] = -0.1
    assert found(ds)["unrelated_update"].affected == 64


@pytest.mark.slow
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


def test_against_prior_follows_the_sign_of_the_scale():
    ds = trajectories().load()
    ds["score_cosine"][:] = -0.5
    ds["shift_direction_cosine"] = -ds["shift_direction_cosine"]
    away = ds.assign_coords(guidance_scale=[-0.3])
    assert found(away) == {}
    away["score_cosine"] = -away["score_cosine"]
    assert set(found(away)) == {"against_prior"}


def test_a_lasting_negative_score_cosine_is_against_prior():
    ds = trajectories().load()
    ds["score_cosine"][:] = -0.5
    assert found(ds)["against_prior"].effect == pytest.approx(-0.5)
