"""What a store holds: dimensions, arrays, chunks and sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Literal

import numpy as np

from gradscope.store.dims import REPEAT
from gradscope.store.grid import Grid

VERSION = 2
_CHUNK_BYTES = 4 * 2**20
_TENSOR_CHUNK_BYTES = 2**20
_SCALAR_CHUNK_STEPS = 50


@dataclass(frozen=True)
class Coordinate:
    """Values along a dimension of an array's own."""

    values: tuple[str, ...] | tuple[float, ...]
    long_name: str
    units: str


@dataclass(frozen=True)
class Array:
    """One recorded array.

    `kind` is ``tensor`` (over all dimensions, for the first samples only), ``scalar`` (over cells, sample, timestep,
    repeat where there is one, and `dims`) or ``final`` (over cells, sample and `dims`, once a trajectory).
    """

    name: str
    kind: Literal["tensor", "scalar", "final"]
    attributes: Mapping[str, Any]
    dtype: str = "float32"
    dims: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the dimensions in `dims` that are neither the sample's nor in `coords`."""
    coords: Mapping[str, Coordinate] = field(default_factory=dict)
    """By dimension."""


WRITTEN = Array(
    "written",
    "scalar",
    {"long_name": "what is recorded: 0 nothing, 1 scalars, 3 scalars and tensors", "units": "1"},
    dtype="uint8",
)


@dataclass(frozen=True)
class Schema:
    """The arrays of a run over its grid."""

    grid: Grid
    arrays: tuple[Array, ...]
    tensor_samples: int = 64
    """Tensors are kept for the first so many samples,"""
    tensor_every: int = 1
    """every so many timesteps, from the first."""
    codec: Literal["none", "lz4"] = "none"
    sharded: bool = False
    """Chunks of tensors lie together in larger objects: for stores that are far away."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all recorded arrays, the marker included."""
        return (*(array.name for array in self.arrays), WRITTEN.name)

    @property
    def tensors(self) -> tuple[Array, ...]:
        return self._of("tensor")

    @property
    def scalars(self) -> tuple[Array, ...]:
        return self._of("scalar")

    @property
    def finals(self) -> tuple[Array, ...]:
        return self._of("final")

    @property
    def coords(self) -> dict[str, Coordinate]:
        """Coordinates of the arrays' own dimensions."""
        return {dim: coordinate for array in self.arrays for dim, coordinate in array.coords.items()}

    def _of(self, kind: str) -> tuple[Array, ...]:
        return tuple(array for array in self.arrays if array.kind == kind)

    @property
    def tensor_chunk(self) -> tuple[int, int]:
        """Samples and timesteps of a tensor's chunk, about 1 MB: no chunk reaches over a block's end.

        One sample, and about equally many timesteps in each chunk of a trajectory: a trajectory is read in few pieces.
        A trajectory that is smaller shares its chunk with others. Where tensors are kept at some timesteps only, a
        chunk is one of these.
        """
        itemsize = max((np.dtype(array.dtype).itemsize for array in self.tensors), default=4)
        one = prod(self.grid.sample_shape) * max(1, self.grid.repeats) * itemsize
        most = max(1, _TENSOR_CHUNK_BYTES // one)
        steps = 1 if self.tensor_every > 1 else ceil(self.grid.timesteps / ceil(self.grid.timesteps / most))
        limit = max(1, min(self.tensor_samples, most // steps))
        whole = self.tensor_every > 1 or steps == self.grid.timesteps
        return (_divisor(self.grid.block, limit) if whole else 1), steps

    def keeps_tensor(self, step: int) -> bool:
        return bool(self.tensors) and step % self.tensor_every == 0

    def kept_samples(self, first_sample: int, samples: int) -> int:
        """How many of a block's samples have their tensors kept."""
        return max(0, min(samples, self.tensor_samples - first_sample))

    def dims(self, array: Array) -> tuple[str, ...]:
        repeat = (REPEAT,) if self.grid.repeats else ()
        time = () if array.kind == "final" else ("timestep", *repeat)
        return (*self.grid.cell_dims, "sample", *time, *array.dims)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Length of the dimension `repeat`; empty where there is none."""
        return (self.grid.repeats,) if self.grid.repeats else ()

    def shape(self, array: Array) -> tuple[int, ...]:
        time = () if array.kind == "final" else (self.grid.timesteps, *self.repeats)
        return (*self.grid.cells, self.grid.samples, *time, *self.extra(array))

    def chunks(self, array: Array) -> tuple[int, ...]:
        samples, steps = self.grid.block, self.scalar_chunk_steps
        if array.kind == "tensor":
            samples, steps = self.tensor_chunk
        elif array.kind == "final":
            samples = self._final_chunk(array)
        time = () if array.kind == "final" else (steps, *self.repeats)
        return (*self._cell, samples, *time, *self.extra(array))

    @property
    def _cell(self) -> tuple[int, ...]:
        """A chunk holds one cell."""
        return (1,) * len(self.grid.cell_dims)

    def _final_chunk(self, array: Array) -> int:
        """Samples of a final array's chunk, near 4 MB, whatever a block has; no chunk reaches over a block's end."""
        limit = _CHUNK_BYTES // (prod(self.extra(array)) * np.dtype(array.dtype).itemsize)
        return _divisor(self.grid.block, limit)

    def shards(self, array: Array) -> tuple[int, ...] | None:
        """Size of the objects that hold several chunks; None where each has its own."""
        if not self.sharded or array.kind != "tensor":
            return None
        return (*self._cell, self.stored_samples, self.tensor_chunk[1], *self.repeats, *self.extra(array))

    @property
    def stored_samples(self) -> int:
        """Samples of a block that are in one object of a tensor: whole chunks, and no object reaches over a block."""
        chunk, kept = self.tensor_chunk[0], self.kept_samples(0, self.grid.block)
        if not self.sharded:
            return chunk
        return next(n for n in range(chunk, self.grid.block + 1, chunk) if self.grid.block % n == 0 and n >= kept)

    def extra(self, array: Array) -> tuple[int, ...]:
        """Lengths of the array's own dimensions."""
        sizes = dict(zip(self.grid.sample_names, self.grid.sample_shape, strict=True))
        sizes |= {dim: len(coordinate.values) for dim, coordinate in array.coords.items()} | dict(array.sizes)
        return tuple(sizes[dim] for dim in array.dims)

    @property
    def scalar_chunk_steps(self) -> int:
        return min(_SCALAR_CHUNK_STEPS, self.grid.timesteps)

    def bytes(self) -> int:
        """Size of the whole store in bytes, uncompressed, without metadata."""
        cells = prod(self.grid.cells)
        kept = self.kept_samples(0, self.grid.samples) * ceil(self.grid.timesteps / self.tensor_every)
        counts = {
            "tensor": kept * max(1, self.grid.repeats),
            "scalar": self.grid.samples * self.grid.timesteps * max(1, self.grid.repeats),
            "final": self.grid.samples,
        }
        arrays = (*self.arrays, WRITTEN)
        return sum(cells * counts[a.kind] * prod(self.extra(a)) * np.dtype(a.dtype).itemsize for a in arrays)

    def files(self) -> int:
        """Number of files of the whole store, at most."""
        stored = ((a, self.shards(a) or self.chunks(a)) for a in (*self.arrays, WRITTEN))
        return sum(1 + prod(map(ceil, np.divide(self._kept_shape(array), size))) for array, size in stored)

    def _kept_shape(self, array: Array) -> tuple[int, ...]:
        """Of an array, as far as it is ever written."""
        shape = list(self.shape(array))
        if array.kind == "tensor":
            first = len(self.grid.cell_dims)
            shape[first] = self.kept_samples(0, self.grid.samples)
            shape[first + 1] = ceil(self.grid.timesteps / self.tensor_every)
        return tuple(shape)


def _divisor(number: int, limit: int) -> int:
    """The largest divisor up to a limit, at least 1."""
    return max(d for d in range(1, max(1, min(limit, number)) + 1) if number % d == 0)


def fill_value(dtype: Any) -> Any:
    """NaN for floats, 0 for the marker and other unsigned integers, -1 for signed ones."""
    if dtype is str:
        return ""
    return {"f": np.nan, "i": -1, "u": 0}[np.dtype(dtype).kind]
