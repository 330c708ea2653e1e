"""What the configuration in a store says about guidance."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray


def guided_timesteps(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Mark the timesteps at which the configuration lets guidance act, ``(timesteps,)``."""
    interval = _settings(ds).get("interval")
    timestep = ds["timestep"].values
    if interval is None:
        return np.ones(len(timestep), dtype=bool)
    return np.asarray((interval[0] <= timestep) & (timestep < interval[1]))


def has_belief_factor(ds: xr.Dataset) -> bool:
    """Whether the gradient has a factor 1 - p, with p the recorded belief in the target class.

    The gradient of log p has it. A mean over noised inputs (SmoothGrad) does not: their beliefs are not recorded.
    """
    settings = _settings(ds)
    return settings.get("objective") == "log_prob" and not settings.get("smoothgrad")


def _settings(ds: xr.Dataset) -> Mapping[str, Any]:
    """Section ``guidance`` of the configuration; empty if the store has no configuration."""
    configuration = json.loads(ds.attrs.get("configuration", "{}"))
    return dict(configuration.get("guidance", configuration))
