"""Recorded arrays as lazy variables: masked where nothing is written yet, scaled where they are stored as float16."""

import uuid
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from gradscope.store.chunks import Chunks, Where


@dataclass(frozen=True)
class Recorded:
    """An array over cells, sample, timestep and dimensions of its own, with what it takes to read it right."""

    values: Chunks
    marker: Chunks
    least: int
    """The marker's value from which on a value is there."""
    exponent: Chunks | None
    """Of values stored as float16, which come back as float32."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.exponent else self.values.array.dtype

    def read(self, where: Where) -> NDArray[Any]:
        """What is written there; elsewhere NaN, and -1 for integers."""
        over = where[: len(self.marker.shape)]
        there = self.marker.select(over) >= self.least  # first: it is set after the values
        values = self.values.select(where)
        if self.exponent:
            exponent = self.exponent.select(over).astype(np.int32)
            exponent = exponent.reshape(exponent.shape + (1,) * (values.ndim - exponent.ndim))
            values = np.ldexp(values.astype(np.float32), exponent)
        if not there.all():
            values = np.asarray(values)  # ldexp of a single value is no array
            values[~there] = -1 if values.dtype.kind == "i" else np.nan
        return values


class _Backend(BackendArray):
    """A recorded array as xarray reads it: whatever it is asked for becomes numbers and slices."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self.shape = recorded.values.shape
        self.dtype = recorded.dtype

    def __getitem__(self, key: ExplicitIndexer) -> NDArray[Any]:
        found: NDArray[Any] = explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._recorded.read)
        return found


def lazy(dims: Sequence[Hashable], recorded: Recorded, attributes: Mapping[Any, Any]) -> xr.Variable:
    """A variable over dask's chunks, which are those of the store."""
    variable = xr.Variable(dims, LazilyIndexedArray(_Backend(recorded)), attributes)
    chunks = dict(zip(dims, recorded.values.size, strict=True))
    # Named by itself: dask would read the values to find a name.
    return variable.chunk(chunks, name=f"recorded-{uuid.uuid4().hex}")
