"""Collect the numbers of a figure: its cells, its sample, its diagnostic, and its table.

Most figures draw a table with one row per cell and timestep. Its first columns are the cell's dimensions, followed by
``timestep`` and the numbers.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.diagnostics import described
from gradscope.analysis.means import Floats
from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from gradscope.plots.style import label
from gradscope.store.dims import over


def full_cell(ds: xr.Dataset, cell: Mapping[str, Any]) -> Cell:
    """A cell with the names along all its dimensions.

    Raises
    ------
    GradscopeError
        There is no such cell.
    """
    return {dim: ds.variables[dim].values.tolist()[i] for dim, i in place(ds, cell).items()}


def full_cells(ds: xr.Dataset, cells: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Distinct cells with the names along all their dimensions.

    Raises
    ------
    GradscopeError
        There is no such cell, or the list is empty.
    """
    if not cells:
        raise GradscopeError("cells: got an empty list; name one cell or more")
    full = [full_cell(ds, cell) for cell in cells]
    return [cell for i, cell in enumerate(full) if cell not in full[:i]]


def sample_index(ds: xr.Dataset, sample: int) -> int:
    """Index of a sample along its dimension.

    Raises
    ------
    GradscopeError
        There is no such sample.
    """
    known = ds["sample"].values.tolist()
    if sample not in known:
        raise GradscopeError(f"sample: there is no {sample}; {known[0]} to {known[-1]}")
    return int(known.index(sample))


def require_diagnostic(ds: xr.Dataset, name: str) -> None:
    """Check that the store has this diagnostic over cells, sample and timestep.

    Raises
    ------
    GradscopeError
        It is missing, or has other dimensions.
    """
    require(ds, name)
    if set(ds[name].dims) != {*over(ds)}:
        raise GradscopeError(f"{name} is not a diagnostic over samples and timesteps")


def cell_values(ds: xr.Dataset, name: str, cell: Cell) -> Floats:
    """A diagnostic of one cell, ``(samples, timesteps)``."""
    return trajectories(ds, name, cell).astype(np.float64)


def trajectories(ds: xr.Dataset, name: str, cell: Cell) -> NDArray[Any]:
    """A variable of one cell as it is stored, ``(samples, timesteps)``."""
    stored = ds.variables[name].isel(place(ds, cell))  # without coordinates, which take most of the time
    return np.asarray(stored.transpose("sample", "timestep").values)


def cell_table(ds: xr.Dataset, cells: Sequence[Cell], columns: Sequence[Mapping[str, NDArray]]) -> pd.DataFrame:
    """A table with one row per cell and timestep.

    Parameters
    ----------
    columns
        For each cell, the columns after ``timestep``, each ``(timesteps,)``.
    """
    timestep = ds["timestep"].values
    names = {dim: [cell[dim] for cell in cells for _ in timestep] for dim in cells[0]}
    values = {key: np.concatenate([part[key] for part in columns]) for key in columns[0]}
    return pd.DataFrame({**names, "timestep": np.tile(timestep, len(cells)), **values})


def evenly(indices: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of the indices, evenly spaced, with the first and the last.

    Examples
    --------
    >>> evenly(np.arange(10), 4).tolist()
    [0, 3, 6, 9]
    """
    last = len(indices) - 1
    return indices[np.unique(np.linspace(0, last, min(count, last + 1)).round().astype(int))]


def diagnostic_attrs(ds: xr.Dataset, name: str) -> dict[str, Any]:
    """Attributes of a table that shows a diagnostic: its ``name``, its ``label`` with the unit, how to draw it."""
    row = described(ds, name)
    return {"name": name, "label": label(ds, name), "logarithmic": row.logarithmic, "on_a_grid": row.on_a_grid}


def by_cell(numbers: pd.DataFrame) -> Iterator[tuple[Mapping[str, Any], pd.DataFrame]]:
    """Each cell with its rows, in the order of the table; its dimensions are the columns before ``timestep``."""
    dims = [str(column) for column in numbers.columns[: numbers.columns.get_loc("timestep")]]
    groups = numbers.groupby(dims, sort=False)
    return ((dict(zip(dims, key, strict=True)), rows) for key, rows in groups)


def without_attrs(numbers: pd.DataFrame) -> pd.DataFrame:
    """The same table without its attributes, of which pandas makes a deep copy at each selection."""
    bare = numbers.copy(deep=False)
    bare.attrs = {}
    return bare


def rows_to_draw(numbers: pd.DataFrame) -> pd.DataFrame:
    """Drop the timesteps at which a diagnostic on a grid is undefined in every cell, so that its lines skip them.

    Timesteps of any other diagnostic all stay: a missing value is a gap in its line.
    """
    if not numbers.attrs["on_a_grid"]:
        return numbers
    there = numbers.groupby("timestep")["n"].transform("sum") > 0
    return numbers[there] if there.any() else numbers
