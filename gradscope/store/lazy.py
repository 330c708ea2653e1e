"""Recorded arrays as lazy variables: masked where nothing is written yet, scaled if stored as float16."""

import uuid
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import ExplicitIndexer, IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from gradscope.store.chunks import Chunks, Where

_TASK_BYTES = 2**20
"""Bytes up to which one task of dask reads several small chunks: those of one chunk of a tensor."""


@dataclass(frozen=True)
class Recorded:
    """An array over cells, sample, timestep and its own dimensions, with its marker and exponents."""

    values: Chunks
    marker: Chunks
    least: int
    """Elements are written where the marker is at least this value."""
    exponent: Chunks | None
    """Binary exponents of values stored as float16, which are read as float32; None for other values."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(np.float32) if self.exponent else self.values.array.dtype

    def read(self, where: Where) -> NDArray[Any]:
        """Read ``array[where]``; elements that are not written are NaN, or -1 for integers."""
        over = where[: len(self.marker.shape)]
        there = np.asarray(self.marker.select(over) >= self.least)  # before the values: a writer sets it after them
        values = self.values.select(where)
        self.values.refuse_missing(where, there, values, len(self.marker.shape))
        if self.exponent:
            exponent = self.exponent.select(over)
            self.exponent.refuse_missing(over, there, exponent, len(self.marker.shape))
            exponent = exponent.astype(np.int32)
            exponent = exponent.reshape(exponent.shape + (1,) * (values.ndim - exponent.ndim))
            values = np.ldexp(values.astype(np.float32), exponent)
        if not there.all():
            values = np.asarray(values)  # ldexp of a single value returns a scalar
            values[~there] = -1 if values.dtype.kind == "i" else np.nan
        return values


@dataclass(frozen=True)
class Final:
    """An array over cells, sample and its own dimensions, with the marker: it is written before the last step is."""

    values: Chunks
    marker: Chunks
    rows: int
    """Number of dimensions up to `sample`, included."""

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.values.array.dtype

    def read(self, where: Where) -> NDArray[Any]:
        """Read ``array[where]``."""
        rows = (*where, *[slice(None)] * (self.rows - len(where)))[: self.rows]
        there = np.asarray(self.marker.select((*rows, *(size - 1 for size in self._time))) > 0)
        values = self.values.select(where)
        self.values.refuse_missing(where, there, values, self.rows)
        return values

    @property
    def _time(self) -> tuple[int, ...]:
        """Lengths of the dimensions at whose end the marker is read: timesteps, and the first of their repetitions.

        A copy of one timestep has none.
        """
        timesteps, repetitions = self.marker.shape[self.rows : self.rows + 1], self.marker.shape[self.rows + 1 :]
        return (*timesteps, *(1 for _ in repetitions))


class _Backend(BackendArray):
    """A recorded array for xarray, which turns every index into integers and slices."""

    def __init__(self, recorded: Recorded | Final) -> None:
        self._recorded = recorded
        self.shape = recorded.values.shape
        self.dtype = recorded.dtype

    def __getitem__(self, key: ExplicitIndexer) -> NDArray[Any]:
        found: NDArray[Any] = explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._recorded.read)
        return found


def masked(stored: xr.Variable, recorded: Recorded | Final) -> xr.Variable:
    """A stored variable whose values are read, and masked, when they are used."""
    return xr.Variable(stored.dims, LazilyIndexedArray(_Backend(recorded)), stored.attrs)


def chunked(variable: xr.Variable, size: Sequence[int], apart: Collection[Hashable]) -> xr.Variable:
    """The variable as a dask array, in chunks of this size or several of them; a single number stays as it is.

    A recording's scalars have chunks of some kilobytes. As a task of dask, above all on a cluster, each would take
    longer than it takes to read. So chunks are joined from the last dimension on, within `_TASK_BYTES`, but not along
    the dimensions `apart`. Tensors have chunks of a megabyte and stay as they are: dask reads the whole chunk for a
    part of it, so that a loop over samples would read each of them several times.
    """
    if not variable.dims:
        return variable
    joined = list(size)
    for axis, dim in reversed(list(enumerate(variable.dims))):
        if dim in apart:
            break
        room = _TASK_BYTES // max(variable.dtype.itemsize * prod(joined), 1)
        joined[axis] *= max(1, min(room, -(-variable.shape[axis] // size[axis])))
        if joined[axis] < variable.shape[axis]:
            break
    # Without a name dask would read the values to compute one.
    return variable.chunk(dict(zip(variable.dims, joined, strict=True)), name=f"recorded-{uuid.uuid4().hex}")
