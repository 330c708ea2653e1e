"""The stored tensors of one sample along t in several cells."""

from collections.abc import Mapping, Sequence
from math import prod

import numpy as np
import xarray as xr

from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from gradscope.plots.cell_style import coordinates
from gradscope.plots.figure_numbers import evenly, full_cell, sample_index
from gradscope.store.dims import sample_dims, sample_shape
from gradscope.store.sample_kind import sample_kind, why_not_drawn

_ELEMENTS = 2**26
"""Largest number of elements that are read of one tensor."""
SHOWN = {"x_t": "x_t", "pred_original_sample": "x0-hat", "gradient": "gradient"}
"""Tensors of a trajectory, with their labels."""


def stored_trajectory(
    ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int
) -> xr.Dataset:
    """The tensors of `SHOWN` of one sample, at timesteps evenly among those that are kept in all these cells.

    Parameters
    ----------
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        Number of the sample.
    steps
        Largest number of timesteps.

    Returns
    -------
    xarray.Dataset
        Tensors over ``cell`` (its name), ``timestep`` and the sample's dimensions in the order of its
        `gradscope.store.sample_kind`; ``gradient`` is divided by its l2 norm, ``gradient_norm``, and NaN where that is
        not finite; ``<tensor>_lost``, the number of elements that are not finite. Attributes: ``kind``, ``sample``, the
        full ``cells``, and the ``coordinates`` of their styles.

    Raises
    ------
    GradscopeError
        Such samples cannot be drawn, or are too large; or the store has none of the tensors, or not those of this
        sample.
    """
    dims = sample_dims(ds)
    names = [name for name in SHOWN if name in ds]
    if not names:
        require(ds, *SHOWN)
    if reason := why_not_drawn(ds):
        raise GradscopeError(reason)
    kind = sample_kind(dims)
    chosen = [ds.isel(place(ds, cell), drop=True).isel(sample=sample_index(ds, sample)) for cell in cells]
    kept = np.flatnonzero(np.logical_and.reduce([cell["written"].values >= 3 for cell in chosen]))
    if not len(kept):
        raise GradscopeError(
            f"sample {sample}: its tensors are not kept in these cells; recording.tensor_samples is the number of "
            "samples that have them"
        )
    kept = evenly(kept, steps)
    elements = len(cells) * len(kept) * prod(sample_shape(ds))
    if elements > _ELEMENTS:
        raise GradscopeError(
            f"{elements:,} elements of each tensor, at most {_ELEMENTS:,} are read: choose fewer cells"
        )
    over = ("cell", "timestep")
    out: dict[str, tuple] = {}
    for name in names:
        tensor = np.stack([cell[name].isel(timestep=kept).transpose("timestep", *kind.dims) for cell in chosen])
        out[name] = ((*over, *kind.dims), tensor)
        out[f"{name}_lost"] = (over, (~np.isfinite(tensor)).sum(axis=tuple(range(2, tensor.ndim))))
        if name == "gradient":
            norm = np.sqrt((tensor.astype(np.float64) ** 2).sum(axis=tuple(range(2, tensor.ndim))))
            divisor = np.where(norm == 0, 1, np.where(np.isfinite(norm), norm, np.nan))
            unit = tensor / divisor.reshape(*norm.shape, *[1] * len(kind.dims))
            out |= {name: (out[name][0], unit), "gradient_norm": (over, norm)}
    full = [full_cell(ds, cell) for cell in cells]
    numbers = xr.Dataset(out, coords={"timestep": ds["timestep"].values[kept], "cell": [*map(cell_name, full)]})
    return numbers.assign_attrs(kind=kind.name, sample=sample, cells=full, coordinates=coordinates(ds))
