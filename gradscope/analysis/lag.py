"""Whether a store's timesteps are near enough to compare gradients at a fixed distance in diffusion time."""

import json

import numpy as np
import xarray as xr

from probes.catalogue import LAG_PARTS

WIDEST = 1.5
"""Parts that two compared gradients may be apart. Further apart, healthy gradients differ as much as faulty ones."""


def too_far(ds: xr.Dataset) -> str:
    """Why compared gradients are too far apart; empty where they are not."""
    timestep = np.sort(ds["timestep"].values)[::-1]
    scheduler = json.loads(ds.attrs.get("scheduler", "{}"))
    total = scheduler.get("num_train_timesteps", int(timestep.max(initial=0)) + 1)
    compared = timestep[np.flatnonzero(np.diff(timestep * LAG_PARTS // total, prepend=-1))]
    if len(compared) < 2:
        return "there is one timestep, and no other that its gradient could be compared with"
    apart, widest = float(np.median(-np.diff(compared))), WIDEST * total / LAG_PARTS
    if apart <= widest:
        return ""
    return (
        f"gradients are {apart:.0f} timesteps apart and can be compared up to {widest:.0f}: record with more steps "
        f"(num_inference_steps from {int(np.ceil(total / widest))})"
    )
