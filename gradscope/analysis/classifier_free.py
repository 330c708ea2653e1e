"""The parts of classifier-free guidance: along the conditional x0-hat, which saturates pictures, and across it."""

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.means import mean_interval, row_means
from gradscope.analysis.missing import require

PARALLEL, PERPENDICULAR, CHANGE = "gradient_parallel_norm", "gradient_perpendicular_norm", "prediction_change"
SHARE = "parallel_share"
QUANTITIES = (PARALLEL, PERPENDICULAR, SHARE, CHANGE)
"""What is shown of the guidance: norms of the two parts, the share of the first, and the change of the prediction."""
NEEDS = (PARALLEL, PERPENDICULAR, CHANGE)
"""Diagnostics that they need, of the probe `classifier_free`."""


def quantity(ds: xr.Dataset, name: str, cell: Cell) -> NDArray[np.float64]:
    r"""One of `QUANTITIES` in a cell, ``(samples, timesteps)``.

    ``parallel_share`` is the norm of the gradient's part along the conditional x0-hat relative to the gradient's,
    :math:`|g_\parallel| / \sqrt{|g_\parallel|^2 + |g_\perp|^2}`, in [0, 1]; NaN for a zero gradient. A random direction
    in d elements has about :math:`\sqrt{2 / (\pi d)}`.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic, or there is no such cell.

    Examples
    --------
    >>> dims = ("sample", "timestep")
    >>> ds = xr.Dataset({PARALLEL: (dims, [[3.0, 0.0]]), PERPENDICULAR: (dims, [[4.0, 0.0]])}, attrs={"cell_dims": []})
    >>> quantity(ds, SHARE, {})
    array([[0.6, nan]])
    """
    if name != SHARE:
        require(ds, name)
        return ds[name].isel(place(ds, cell)).transpose("sample", "timestep").values.astype(np.float64)
    along, across = quantity(ds, PARALLEL, cell), quantity(ds, PERPENDICULAR, cell)
    whole = np.hypot(along, across)
    return np.divide(along, whole, out=np.full_like(along, np.nan), where=whole > 0)


def parts_table(ds: xr.Dataset) -> pd.DataFrame:
    """Each cell's mean over t, with 95 % intervals over samples.

    Parameters
    ----------
    ds
        A store with the diagnostics of the probe `classifier_free`, or the scalars of one.

    Returns
    -------
    pandas.DataFrame
        One row for each cell: its names; ``n``, the number of samples; ``weight``, the mean scale w in u + w (c - u);
        each of `QUANTITIES` with ``..._low`` and ``..._high``, Student's interval over the samples' means over t.

    Raises
    ------
    GradscopeError
        The store has no such diagnostics.
    """
    require(ds, *NEEDS)
    rows = []
    for cell in cells(ds):
        row = dict(cell)
        row["n"] = int(np.isfinite(quantity(ds, PARALLEL, cell)).any(axis=1).sum())
        if "guidance_weight" in ds:
            row["weight"] = float(mean_interval(row_means(quantity(ds, "guidance_weight", cell))).mean)
        for name in QUANTITIES:
            found = mean_interval(row_means(quantity(ds, name, cell)))
            row |= {name: float(found.mean), f"{name}_low": float(found.low), f"{name}_high": float(found.high)}
        rows.append(row)
    return pd.DataFrame(rows)
