"""The table of a leaderboard: one row for each guide, method and stabiliser, best first.

A row concerns one mixture, or is the mean over all of them. The unit of its intervals is the sample (trajectory):
values are means over timesteps, replicates and mixtures first.
"""

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.oracle_variables import check
from gradscope.errors import GradscopeError, one_of
from gradscope.intervals import student, wilson
from gradscope.store.derived import ORACLE, read
from gradscope.store.locations.location import StorePath

ROW = ("guide", "guidance_method", "stabilizer")
"""What a row is named by."""
CONTROL = "none"
"""The stabiliser that others are compared with."""


def open_leaderboard(where: StorePath) -> xr.Dataset:
    """Read the leaderboard of a store.

    Raises
    ------
    GradscopeError
        There is no store, it is damaged, or it holds no leaderboard.
    """
    return check(read(where, ORACLE), str(where))


def leaderboard_table(ds: xr.Dataset, mixture: str | None = None) -> pd.DataFrame:
    """The table of a leaderboard, sorted by the cosine of the update at the control's x_t, then by accuracy.

    Parameters
    ----------
    ds
        Of `open_leaderboard`.
    mixture
        Name of one mixture; None for the mean over all.

    Returns
    -------
    pandas.DataFrame
        One row for each cell. ``update_cosine``: of the update with the exact gradient at the control's x_t;
        ``gradient_cosine``: of the gradient before the stabiliser; ``guided_cosine``: of the update along the
        trajectories that it guides; ``bias`` and ``variance``: of the gradient, means over timesteps; ``accuracy``;
        ``gain``: its paired difference to the stabiliser none, NaN without it; ``kl``: the median over mixtures;
        ``coverage``. Intervals of 95 % end in ``_low`` and ``_high``: Student's over samples, for the accuracy
        Wilson's.

    Raises
    ------
    GradscopeError
        There is no such mixture.

    Examples
    --------
    >>> leaderboard_table(open_leaderboard("oracle.zarr")).columns[:4].tolist()
    ['guide', 'guidance_method', 'stabilizer', 'update_cosine']
    """
    names = ds["mixture"].values.tolist()
    if mixture is not None and mixture not in names:
        raise GradscopeError(f"mixture: got {mixture!r}; {one_of(mixture, names)}")
    part = ds if mixture is None else ds.sel(mixture=[mixture])
    update, right = part["mean_update_cosine"], part["right"].astype(float).mean(["mixture", "replicate"])
    n = part.sizes["sample"] * part.sizes["mixture"]
    accuracy = right.mean("sample")
    low, high = wilson(accuracy.values * n, n)
    columns: dict[str, Any] = {
        **_interval("update_cosine", update.sel(path="control", drop=True).mean("mixture")),
        **_interval("gradient_cosine", part["mean_gradient_cosine"].sel(path="control", drop=True).mean("mixture")),
        **_interval("guided_cosine", update.sel(path="guided", drop=True).mean("mixture")),
        "bias": part["gradient_bias"].mean(["mixture", "timestep"]),
        "variance": part["gradient_variance"].mean(["mixture", "timestep"]),
        "accuracy": accuracy,
        "accuracy_low": accuracy.copy(data=low),
        "accuracy_high": accuracy.copy(data=high),
        **_interval("gain", _gain(right)),
        "kl": part["kl"].median("mixture"),
        "coverage": part["coverage"].mean("mixture"),
    }
    table = xr.Dataset(columns).to_dataframe(dim_order=ROW).reset_index()
    ordered = table.sort_values(["update_cosine", "accuracy"], ascending=False, kind="stable", ignore_index=True)
    return ordered[[*ROW, *columns]]


def stabilizer_gains(ds: xr.Dataset) -> pd.DataFrame:
    """What each stabiliser changes of each method, against the stabiliser none: means over mixtures and guides.

    Parameters
    ----------
    ds
        Of `open_leaderboard`.

    Returns
    -------
    pandas.DataFrame
        One row for each method and stabiliser but none; no rows without none. ``cosine``: change of the update's cosine
        with the exact gradient at the control's x_t; ``accuracy``: change of the final accuracy; paired over samples,
        with Student's intervals, ``_low`` and ``_high``.

    Examples
    --------
    >>> stabilizer_gains(open_leaderboard("oracle.zarr"))["stabilizer"].tolist()
    ['adam', 'adam']
    """
    if CONTROL not in ds["stabilizer"].values:
        return pd.DataFrame()
    averaged = ["mixture", "guide"]
    values = {
        "cosine": ds["mean_update_cosine"].sel(path="control", drop=True).mean(averaged),
        "accuracy": ds["right"].astype(float).mean([*averaged, "replicate"]),
    }
    columns: dict[str, Any] = {}
    for name, value in values.items():
        columns |= _interval(name, _gain(value))
    table = xr.Dataset(columns).drop_sel(stabilizer=CONTROL).to_dataframe(dim_order=["guidance_method", "stabilizer"])
    return table.reset_index()


def _gain(values: xr.DataArray) -> xr.DataArray:
    """Difference of each sample's value to that under the stabiliser none; NaN without none."""
    if CONTROL not in values["stabilizer"].values:
        return xr.full_like(values, np.nan)
    return values - values.sel(stabilizer=CONTROL, drop=True)


def _interval(name: str, values: xr.DataArray) -> dict[str, xr.DataArray]:
    """The mean over samples, with Student's interval."""
    n = values.sizes["sample"]
    mean = values.mean("sample", skipna=False)
    half = float(student(0.95, n - 1)) * values.std("sample", ddof=1, skipna=False) / n**0.5
    return {name: mean, f"{name}_low": mean - half, f"{name}_high": mean + half}
