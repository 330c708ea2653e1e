"""A summary per cell: whether guidance worked, and how the gradients behaved."""

import numpy as np
import xarray as xr

from gradscope.analysis.in_memory import in_memory
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.verdicts import class_names
from gradscope.intervals import wilson
from gradscope.store.dims import cell_dims

TRAJECTORY_MEANS = ("gradient_cosine", "update_cosine", "effective_strength")


def summary(ds: xr.Dataset) -> xr.Dataset:
    """Summarise a run over its cells.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, whole or partly written, or a selection of it.

    Returns
    -------
    xarray.Dataset
        Over the cell dimensions: ``samples``, the number of finished ones; ``gradient_cosine``, ``update_cosine`` and
        ``effective_strength``, if recorded, as means over samples of each trajectory's mean; ``nonfinite_steps``, the
        number of steps whose gradient was not finite. After an evaluation also ``own_accuracy`` and ``judge_accuracy``,
        with Wilson's 95 % bounds ``own_accuracy_interval`` and ``judge_accuracy_interval`` over ``bound``, as the store
        calls them, and the judge's ``class_accuracy`` over ``class``. Only written steps, and only predictions for
        finite images, are counted.

    Examples
    --------
    >>> gradscope.summary(ds).judge_accuracy.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale')
    """
    ds = in_memory(restore_dims(ds))
    done = (ds["written"] > 0).all("timestep")
    out = xr.Dataset({"samples": done.sum("sample")}, attrs={"cell_dims": list(cell_dims(ds))})
    for name in TRAJECTORY_MEANS:
        if name in ds:
            out[name] = ds[name].mean("timestep", skipna=True).mean("sample", skipna=True)
    if "finite_fraction" in ds:
        out["nonfinite_steps"] = (ds["finite_fraction"] < 1).sum(("sample", "timestep"))
    for name in ("own", "judge"):
        if f"{name}_prediction" in ds:
            seen = done & (ds[f"{name}_prediction"] >= 0)
            right = seen & (ds[f"{name}_prediction"] == ds["label"])
            hits, count = right.sum("sample"), seen.sum("sample")
            out[f"{name}_accuracy"] = hits / count.where(count > 0)
            low, high = xr.apply_ufunc(wilson, hits.compute(), count.compute(), output_core_dims=[[], []])
            out[f"{name}_accuracy_interval"] = xr.concat([low, high], xr.Variable("bound", ["low", "high"]))
    if "judge_prediction" in ds:
        out["class_accuracy"] = _by_class(ds, done & (ds["judge_prediction"] >= 0))
    return out.compute()


def _by_class(ds: xr.Dataset, seen: xr.DataArray) -> xr.DataArray:
    """The judge's accuracy on the samples of each target class, over cells and ``class``."""
    names = class_names(ds)
    of_class = ds["label"] == xr.DataArray(np.arange(len(names)), dims="class", coords={"class": names})
    right = (ds["judge_prediction"] == ds["label"]) & seen & of_class
    count = (seen & of_class).sum("sample")
    return right.sum("sample") / count.where(count > 0)
