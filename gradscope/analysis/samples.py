"""Every sample of every cell in one table: its verdicts, joined with means of its diagnostics over the first steps."""

from collections.abc import Mapping, Sequence
from math import ceil

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.findings import Finding
from gradscope.analysis.means import Floats, finite_mean
from gradscope.analysis.missing import require
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.signatures import find
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims, over

EARLY = "early_"
"""Prefix of the columns of means over the first timesteps."""


def samples(ds: xr.Dataset, early: float = 0.25, names: str | Sequence[str] | None = None) -> pd.DataFrame:
    """One row per cell and sample: which failed, and what its diagnostics were over the first timesteps.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.
    early
        Share of the timesteps, in (0, 1], in sampling order: 0.25 takes the noisiest quarter, at least one timestep.
    names
        Diagnostics over cells, sample and timestep; by default all that are numbers.

    Returns
    -------
    pandas.DataFrame
        The columns of the cell; ``sample``; ``target``, the name of its class; ``seen``, the class that the judge sees
        in the final sample; ``right``, whether that is the target, and ``own_right``, whether the guide's own class is;
        ``findings``, the alarms and warnings of its cell and class, with commas between; ``early_<name>``, the mean of
        the finite values of each diagnostic, NaN where there are none. A sample that is not finished, or has no
        verdict, has ``right`` missing (`pandas.NA`): ``table[table.right == False]`` holds those that failed.

    Raises
    ------
    GradscopeError
        `early` is not in (0, 1], or the store has no such diagnostic.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> table = samples(synthetic.trajectories("classes_gone"), early=0.2, names="log_prob")
    >>> table.groupby("target").right.mean().tolist()[:2]
    [0.0, 0.0]
    >>> table.groupby("right").early_log_prob.mean().shape
    (2,)
    """
    if isinstance(early, bool) or not isinstance(early, int | float) or not 0 < early <= 1:
        raise GradscopeError(f"early: takes a share of the timesteps above 0 and up to 1, got {early!r:.40}")
    ds = restore_dims(ds)
    along = {*over(ds)}
    if names is None:
        names = [str(name) for name, v in ds.data_vars.items() if {*v.dims} == along and v.dtype.kind == "f"]
    names = [names] if isinstance(names, str) else list(names)
    require(ds, *names)
    if other := [name for name in names if {*ds[name].dims} != along or ds[name].dtype.kind != "f"]:
        raise GradscopeError(f"{other[0]} is not a number over cells, samples and timesteps")
    steps = max(1, ceil(early * ds.sizes["timestep"] - 1e-9))  # 0.1 of 30 is 3, whatever the rounding
    small = [name for name in ("own_prediction", "judge_prediction") if name in ds]
    ds = ds.assign(ds[[*small, "written"]].compute())
    means = {name: _early_means(ds[name].isel(timestep=slice(steps)).transpose(*over(ds))) for name in names}
    found = [finding for finding in find(ds) if finding.severity != "remark"]
    parts = [_rows(ds, means, cell, found) for cell in cells(ds)]
    return pd.concat(parts, ignore_index=True)


def _early_means(first: xr.DataArray) -> Floats:
    """Means of the finite values over the last dimension, the first timesteps; one variable at a time is read."""
    return finite_mean(first.values.astype(np.float64), axis=-1)[0]


def _rows(ds: xr.Dataset, means: Mapping[str, Floats], cell: Cell, findings: Sequence[Finding]) -> pd.DataFrame:
    """The rows of one cell; `means` are over cells and samples."""
    at, classes, label = place(ds, cell), class_names(ds), ds["label"].values
    done = finished(ds[["written"]].isel(at))
    target = [class_name(classes, number) for number in label.tolist()]
    columns = {dim: cell[dim] for dim in cell_dims(ds)} | {"sample": ds["sample"].values, "target": target}
    if "judge_prediction" in ds:
        seen = ds["judge_prediction"].isel(at).values
        known = done & (seen >= 0)
        named = [class_name(classes, number) if k else None for number, k in zip(seen.tolist(), known, strict=True)]
        columns |= {"seen": named, "right": _verdict(seen == label, known)}
    if "own_prediction" in ds:
        own = ds["own_prediction"].isel(at).values
        columns["own_right"] = _verdict(own == label, done & (own >= 0))
    here = [finding for finding in findings if finding.cell == dict(cell)]
    columns["findings"] = [
        ", ".join(dict.fromkeys(f.signature for f in here if f.target_class in ("", name))) for name in target
    ]
    columns |= {f"{EARLY}{name}": values[tuple(at.values())] for name, values in means.items()}
    return pd.DataFrame(columns)


def _verdict(right: np.ndarray, known: np.ndarray) -> pd.arrays.BooleanArray:
    return pd.arrays.BooleanArray(right, ~known)
