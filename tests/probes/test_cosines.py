"""Cosines, re-derived in float64 NumPy."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from guided_steps import N, check, flat, make_steps, run

import probes
from probes import GuidedStep, Trace


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e-37, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ["gradient", "update"])
def test_norms_and_cosines_hold_at_any_scale(name, scale, dtype):
    steps = make_steps(scale=scale, dtype=dtype)
    trace, g = run(["norms", "cosines"], steps), flat(steps, name)
    norms = np.sqrt((g**2).sum(-1))
    check(trace[f"{name}_norm"], norms)
    cosine = (g[1:] * g[:-1]).sum(-1) / (norms[1:] * norms[:-1])
    assert torch.isnan(trace[f"{name}_cosine"][:, 0]).all()
    check(trace[f"{name}_cosine"][:, 1:], cosine)


def test_score_cosine_is_the_cosine_with_minus_epsilon():
    steps = make_steps()
    g, e = flat(steps, "gradient"), flat(steps, "model_output")
    expected = -(g * e).sum(-1) / np.sqrt((g**2).sum(-1) * (e**2).sum(-1))
    check(run(["cosines"], steps)["score_cosine"], expected)


def times(*timesteps, total=1000, **fields):
    """One step at each of these timesteps."""
    about = {"num_train_timesteps": total, **fields}
    return [
        GuidedStep(**{**vars(step), "timestep": t, **about})
        for step, t in zip(make_steps(len(timesteps)), timesteps, strict=True)
    ]


def lagged(timesteps, total=1000):
    """Index of the gradient that each step is compared with, by definition: first steps in parts of total / 28."""
    first = {}
    for i, t in enumerate(timesteps):
        first.setdefault(t // Fraction(total, 28), i)
    places = sorted(first.values())
    return dict(zip(places[1:], places, strict=False))


@pytest.mark.parametrize(
    ("timesteps", "total"),
    [
        (range(990, -1, -33), 1000),  # 31 steps, nearly all in different parts
        (range(999, 949, -1), 1000),  # 50 successive steps, in three parts
        (range(875, -1, -125), 1000),  # 8 steps, far apart
        (range(390, -1, -10), 400),
        (range(3960, -1, -40), 4000),
    ],
)
def test_the_lag_cosine_compares_gradients_at_a_fixed_distance_in_diffusion_time(timesteps, total):
    steps = times(*timesteps, total=total)
    got, g = run(["cosines"], steps)["gradient_lag_cosine"], flat(steps, "gradient")
    expected = np.full((len(steps), N), np.nan)
    for i, before in lagged(timesteps, total).items():
        norms = np.linalg.norm(g[i], axis=-1) * np.linalg.norm(g[before], axis=-1)
        expected[i] = (g[i] * g[before]).sum(-1) / norms
    check(got, expected)
    assert np.isfinite(expected).any(axis=1).sum() == min(28, len({t * 28 // total for t in timesteps})) - 1


def test_a_sampler_without_num_train_timesteps_has_no_lag_cosine():
    with pytest.raises(ValueError, match=r"LagCosine needs GuidedStep\.num_train_timesteps"):
        run(["cosines"], times(999, 500, num_train_timesteps=None))
    trace = Trace([probes.Cosine("gradient")])
    for step in times(999, 500, num_train_timesteps=None):
        trace(step)
    assert torch.isfinite(trace["gradient_cosine"][:, 1]).all()


def test_the_first_cosine_compares_with_the_samples_first_gradient():
    steps = make_steps()
    steps[0].gradient[1] = 0
    steps[0].gradient[2, 0, 0, 0] = torch.nan
    got, g = run(["cosines"], steps)["gradient_first_cosine"], flat(steps, "gradient")
    expected = np.full((len(steps), N), np.nan)
    for n in range(N):
        first = 1 if n in (1, 2) else 0
        for t in range(first + 1, len(steps)):
            expected[t, n] = g[t, n] @ g[first, n] / np.linalg.norm(g[t, n]) / np.linalg.norm(g[first, n])
    check(got, expected)


def test_shift_and_update_are_compared_with_what_they_follow():
    steps = make_steps()
    steps[1].shift[0] = 0
    steps[2].update[1] = -1e-3 * steps[2].gradient[1]
    trace = run(["cosines", "strength"], steps)
    for name, (a, b) in {
        "shift_direction_cosine": ("shift", "direction"),
        "update_gradient_cosine": ("update", "gradient"),
    }.items():
        x, y = flat(steps, a), flat(steps, b)
        with np.errstate(invalid="ignore"):
            check(trace[name], (x * y).sum(-1) / (np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)))
    assert torch.isnan(trace["shift_direction_cosine"]).sum() == 1
    assert trace["update_gradient_cosine"][1, 2] == pytest.approx(-1)
