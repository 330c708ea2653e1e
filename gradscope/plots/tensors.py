"""The stored gradient of one cell: a bounded part of it, read a chunk at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import place, require
from gradscope.errors import GradscopeError
from probes.variable import IMAGE_DIMS

_MOST = 4096
"""Gradients that are read for one figure."""
_STEPS = 10
"""Timesteps of a chunk of data in memory."""
_ELEMENTS = 2**28
"""Of gradients that are in memory together."""


@dataclass(frozen=True)
class Stored:
    """Some samples and timesteps of one cell's gradient."""

    timestep: NDArray[np.int64]
    samples: NDArray[np.int64]
    there: NDArray[np.bool_]
    """Which are stored, ``(timesteps, samples)``."""
    tensor: xr.DataArray
    """Over timestep, sample, channel, height and width."""
    chunks: list[slice]
    """Timesteps that are stored together."""

    def read(self) -> Iterator[tuple[int, NDArray]]:
        """Place of each timestep, and what is stored there, ``(samples, channel, height, width)``, in float64."""
        for steps in self.chunks:
            for step, tensor in enumerate(self.tensor.isel(timestep=steps).values.astype(np.float64), steps.start):
                yield step, tensor[self.there[step]]

    def __str__(self) -> str:
        return f"the first {len(self.samples)} samples, {len(self.timestep)} timesteps"


def stored_gradient(ds: xr.Dataset, cell: Mapping[str, Any], samples: int, timesteps: int) -> Stored:
    """The first `samples` that are stored, and so many timesteps evenly among those that are; or fewer.

    Raises
    ------
    GradscopeError
        The store has no gradients, none of this cell yet, or no such cell; or more are wanted than are read at once.
    """
    require(ds, "gradient")
    if min(samples, timesteps) < 1 or samples * timesteps > _MOST:
        raise GradscopeError(f"got {samples} samples and {timesteps} timesteps; from 1 to {_MOST} gradients together")
    chosen = ds[["gradient", "written"]].isel(place(ds, cell), drop=True).transpose("timestep", "sample", ...)
    there = chosen["written"].values >= 3
    rows = np.flatnonzero(there.any(axis=0))[:samples]
    kept = np.flatnonzero(there[:, rows].any(axis=1))
    if not len(kept):
        raise GradscopeError("no gradient of this cell is stored yet; recording.tensor_samples is how many are kept")
    kept = kept[np.unique(np.linspace(0, len(kept) - 1, min(timesteps, len(kept))).round().astype(int))]
    chunk = chosen["gradient"].variable.chunksizes.get("timestep", (_STEPS,))[0]
    elements = min(chunk, len(kept)) * len(rows) * prod(ds.sizes[dim] for dim in IMAGE_DIMS)
    if elements > _ELEMENTS:
        raise GradscopeError(f"gradients of {elements:,} elements would be read at once; at most {_ELEMENTS:,} are")
    starts = np.flatnonzero(np.diff(kept // chunk, prepend=-1)).tolist()
    return Stored(
        timestep=ds["timestep"].values[kept],
        samples=ds["sample"].values[rows],
        there=there[np.ix_(kept, rows)],
        tensor=chosen["gradient"].isel(timestep=kept, sample=rows),
        chunks=[slice(start, stop) for start, stop in zip(starts, [*starts[1:], len(kept)], strict=True)],
    )
