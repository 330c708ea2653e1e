"""Cells with a known fault, a known accuracy, or a stabiliser beside none; and the findings in them."""

import numpy as np
import xarray as xr

from gradscope.analysis.signatures import find
from gradscope.analysis.synthetic import trajectories


def found(ds):
    """The findings in a store, by signature."""
    return {finding.signature: finding for finding in find(ds)}


def accurate(hits, samples=64):
    """A cell in which guide and judge see the target class in the first `hits` samples."""
    ds = trajectories(samples=samples).load()
    label = ds["label"].values
    seen = np.where(np.arange(samples) < hits, label, (label + 1) % 4)
    for name in ("own_prediction", "judge_prediction"):
        ds[name][:] = seen
    ds["predicted_class"][:] = seen[:, None]
    return ds


def stabilised(accuracy, name="smooth", samples=64):
    """A cell without a stabiliser, and one with a stabiliser and this accuracy."""
    smooth = trajectories(samples=samples, seed=1, accuracy=accuracy).assign_coords(stabilizer=[name])
    return xr.concat([trajectories(samples=samples), smooth], "stabilizer", data_vars="all", join="outer")
