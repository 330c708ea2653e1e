"""Stores in memory with known differences."""

import numpy as np
import pytest
import small_store
import xarray as xr

from gradscope.analysis.synthetic import trajectories
from gradscope.store import CELL_DIMS

SHIFTED = slice(5, 12)
"""Steps of `pair` at which gradient_cosine is larger in b than in a."""


@pytest.fixture
def ds() -> xr.Dataset:
    """The small evaluated store, with an entropy."""
    ds = small_store.evaluated()
    rng = np.random.default_rng(1)
    ds["entropy"] = (ds["log_prob"].dims, rng.uniform(0, np.log(4), ds["log_prob"].shape), {"units": "nat"})
    ds["log_prob"].attrs["units"] = "nat"
    return ds


@pytest.fixture
def pair() -> xr.Dataset:
    """70 samples of 20 steps in two cells with the same noise; their stabilisers are `a` and `b`."""
    rng = np.random.default_rng(2)
    one = trajectories("none", samples=70, timesteps=20, seed=3)
    one["gradient_cosine"][...] = rng.uniform(0.2, 0.4, one["gradient_cosine"].shape)
    other = one.copy(deep=True)
    noise = rng.normal(0, 0.01, other["gradient_cosine"].shape)
    other["gradient_cosine"] += noise
    other["gradient_cosine"][..., SHIFTED] += 0.3
    other["judge_prediction"] = xr.where(other["sample"] < 10, (other["label"] + 1) % 4, other["label"]).broadcast_like(
        other["judge_prediction"]
    )
    parts = [part.assign_coords(stabilizer=[name]) for part, name in ((one, "a"), (other, "b"))]
    both = xr.concat(parts, "stabilizer", data_vars="all").transpose(*CELL_DIMS, "sample", "timestep", ...)
    return both.assign_coords(sample=np.arange(70))
