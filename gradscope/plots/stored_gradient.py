"""The stored gradient of one cell: a part of limited size, read one chunk at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import place
from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from gradscope.plots.figure_numbers import evenly
from gradscope.store.dims import sample_shape

_MOST = 4096
"""Largest number of gradients that are read for one figure."""
_STEPS = 10
"""Timesteps to read at once from data in memory, which have no chunks."""
_ELEMENTS = 2**28
"""Largest number of elements in memory at once."""


@dataclass(frozen=True)
class StoredGradient:
    """Some samples and timesteps of one cell's gradient."""

    timestep: NDArray[np.int64]
    samples: NDArray[np.int64]
    there: NDArray[np.bool_]
    """Which gradients are stored, ``(timesteps, samples)``."""
    tensor: xr.DataArray
    """Over timestep, sample and the dimensions of a sample."""
    chunks: list[slice]
    """Timesteps that are stored in one chunk."""

    def read(self) -> Iterator[tuple[int, NDArray]]:
        """Index of each timestep, and its stored gradients, ``(samples, *sample)``, in float64."""
        for steps in self.chunks:
            for step, tensor in enumerate(self.tensor.isel(timestep=steps).values.astype(np.float64), steps.start):
                yield step, tensor[self.there[step]]

    def __str__(self) -> str:
        return f"the first {len(self.samples)} samples, {len(self.timestep)} timesteps"


def stored_gradient(ds: xr.Dataset, cell: Mapping[str, Any], samples: int, timesteps: int) -> StoredGradient:
    """Choose the first stored samples of a cell, and timesteps evenly among the stored ones.

    Parameters
    ----------
    samples, timesteps
        Largest number of each.

    Raises
    ------
    GradscopeError
        The store has no gradients, none of this cell yet, or no such cell; or too many gradients are requested.
    """
    require(ds, "gradient")
    if min(samples, timesteps) < 1 or samples * timesteps > _MOST:
        raise GradscopeError(f"got {samples} samples and {timesteps} timesteps; from 1 to {_MOST} gradients together")
    chosen = ds[["gradient", "written"]].isel(place(ds, cell), drop=True).transpose("timestep", "sample", ...)
    there = chosen["written"].values >= 3
    rows = np.flatnonzero(there.any(axis=0))[:samples]
    kept = np.flatnonzero(there[:, rows].any(axis=1))
    if not len(kept):
        raise GradscopeError(
            "no gradient of this cell is stored yet; recording.tensor_samples is the number of samples that have one"
        )
    kept = evenly(kept, timesteps)
    chunk = chosen["gradient"].variable.chunksizes.get("timestep", (_STEPS,))[0]
    elements = min(chunk, len(kept)) * len(rows) * prod(sample_shape(ds))
    if elements > _ELEMENTS:
        raise GradscopeError(f"one chunk has {elements:,} elements of gradients; at most {_ELEMENTS:,} can be read")
    starts = np.flatnonzero(np.diff(kept // chunk, prepend=-1)).tolist()
    return StoredGradient(
        timestep=ds["timestep"].values[kept],
        samples=ds["sample"].values[rows],
        there=there[np.ix_(kept, rows)],
        tensor=chosen["gradient"].isel(timestep=kept, sample=rows),
        chunks=[slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(kept)], strict=True)],
    )
