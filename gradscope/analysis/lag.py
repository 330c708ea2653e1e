"""Whether a store's timesteps are near enough to compare gradients at a fixed distance in diffusion time."""

import json

import numpy as np
import xarray as xr

GRID = 28
"""Parts of diffusion time; the probe `cosines` compares gradients of neighbouring parts (`gradient_lag_cosine`)."""
WIDEST = 1.5
"""Parts that two compared gradients may be apart. Further apart, healthy gradients differ as much as faulty ones."""


def too_far(ds: xr.Dataset) -> str:
    """Why compared gradients are too far apart; empty where they are not."""
    timestep = np.sort(ds["timestep"].values)
    if len(timestep) < 2:
        return "one timestep has no other to be compared with"
    scheduler = json.loads(ds.attrs.get("scheduler", "{}"))
    total = scheduler.get("num_train_timesteps", int(timestep[-1]) + 1)
    apart, part = float(np.median(np.diff(timestep))), total / GRID
    if apart <= WIDEST * part:
        return ""
    return (
        f"gradients are {apart:.0f} timesteps apart and can be compared up to {WIDEST * part:.0f}: record with more "
        f"steps (num_inference_steps from {int(np.ceil(total / (WIDEST * part)))})"
    )
