"""Two cells that are compared, of one store or of two: the samples and the timesteps that they share."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.means import Floats, row_means
from gradscope.analysis.paired_cells import paired_difference
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError

Indices = NDArray[np.int64]


class TwoCells:
    """Cells a and b, over the samples that are finished.

    A sample of a is paired with the sample of b that has the same seed and label: both began with the same noise. Where
    the samples of the smaller store do not all have a partner, nothing is paired, and each cell has all its samples.

    Parameters
    ----------
    ds
        The store of a, and of b where `other` is None.
    a, b
        Names of the cells; dimensions of size one may be left out.
    other
        The store of b.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same cell of one store.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        a: Mapping[str, str | float],
        b: Mapping[str, str | float],
        other: xr.Dataset | None = None,
    ) -> None:
        ds = restore_dims(ds)
        self.stores = (ds, ds if other is None else restore_dims(other))
        places = [place(store, cell) for store, cell in zip(self.stores, (a, b), strict=True)]
        self.a, self.b = (_names(store, at) for store, at in zip(self.stores, places, strict=True))
        if other is None and self.a == self.b:
            name = ", ".join(f"{dim} {value}" for dim, value in self.a.items())
            raise GradscopeError(f"compare: both are the cell {name}")
        self.cells = tuple(store.isel(at) for store, at in zip(self.stores, places, strict=True))
        self.of_two_stores = other is not None
        rows, self.why_unpaired = _partners(*self.stores) if self.of_two_stores else (_every(ds, "sample"), "")
        done = [finished(cell) for cell in self.cells]
        both = done[0][rows[0]] & done[1][rows[1]] if self.paired else None
        self.rows = tuple(row[both] if self.paired else np.flatnonzero(d) for row, d in zip(rows, done, strict=True))
        """Index of each compared sample in both stores; unless paired, the arrays differ in length."""
        first, second = (store["timestep"].values for store in self.stores)
        self.same_times = np.array_equal(first, second)
        """Whether both cells have the same timesteps."""
        self.steps = _every(ds, "timestep") if self.same_times else _common(first, second)
        """Index in both stores of each timestep that both have."""

    @property
    def paired(self) -> bool:
        """Whether samples are pairs."""
        return not self.why_unpaired

    @property
    def samples(self) -> tuple[NDArray[np.int64], ...]:
        """Numbers of the compared samples, in the store of a and in that of b."""
        return tuple(store["sample"].values[rows] for store, rows in zip(self.stores, self.rows, strict=True))

    def values(self, name: str) -> tuple[Floats, Floats]:
        """A diagnostic of a and of b, each ``(samples, timesteps)``; the values may be NaN or infinite."""
        first, second = (
            cell[name].transpose("sample", "timestep").values[rows].astype(np.float64)
            for cell, rows in zip(self.cells, self.rows, strict=True)
        )
        return first, second

    def means(self, a: Floats, b: Floats) -> tuple[Floats, Floats]:
        """Mean of each trajectory over the timesteps at which it is finite, and of pairs where both are finite.

        Parameters
        ----------
        a, b
            As `values` returns them.
        """
        if self.paired and self.same_times:
            known = np.isfinite(paired_difference(a, b))
            a, b = np.where(known, a, np.nan), np.where(known, b, np.nan)
        return row_means(a), row_means(b)


def _names(ds: xr.Dataset, at: Mapping[str, int]) -> Cell:
    return {dim: ds[dim].values.tolist()[i] for dim, i in at.items()}


def _every(ds: xr.Dataset, dim: str) -> tuple[Indices, Indices]:
    return np.arange(ds.sizes[dim]), np.arange(ds.sizes[dim])


def _common(a: Indices, b: Indices) -> tuple[Indices, Indices]:
    """Places of the values that both have, in the order of the first."""
    _, first, second = np.intersect1d(a, b, return_indices=True)
    order = np.argsort(first)
    return first[order], second[order]


def _partners(a: xr.Dataset, b: xr.Dataset) -> tuple[tuple[Indices, Indices], str]:
    """Indices of the samples of two stores that are pairs, or why there are none."""
    nothing = np.arange(0), np.arange(0)
    if any("seed" not in ds.coords or ds["seed"].dims != ("sample",) for ds in (a, b)):
        return nothing, "a store does not name the seed of each sample"
    known = [list(zip(ds["seed"].values.tolist(), ds["label"].values.tolist(), strict=True)) for ds in (a, b)]
    places = [{key: i for i, key in enumerate(keys)} for keys in known]
    if any(len(each) < len(keys) for each, keys in zip(places, known, strict=True)):
        return nothing, "several samples of a store have the same seed and label"
    shared = [key for key in places[0] if key in places[1]]
    fewest = min(map(len, known))
    if len(shared) < fewest:
        few = f"{len(shared)} of {fewest}" if shared else "no"
        return nothing, f"{few} samples have the same seed and label in both stores"
    first, second = (np.array([at[key] for key in shared], dtype=np.int64) for at in places)
    return (first, second), ""
