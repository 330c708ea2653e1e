"""The arrays of a store: their dimensions, chunks and sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Literal

import numpy as np

from gradscope.store.dims import REPEAT
from gradscope.store.grid import Grid

VERSION = 3
RESUMED = (2, VERSION)
"""Versions that can be resumed. Version 3 has a checksum of the metadata, and the same arrays as version 2."""
MOST_FILES = 10**6
"""Largest number of files of a store."""
_CHUNK_BYTES = 4 * 2**20
_TENSOR_CHUNK_BYTES = 2**20
_SCALAR_CHUNK_STEPS = 50


@dataclass(frozen=True)
class Coordinate:
    """Values along an array's own dimension."""

    values: tuple[str, ...] | tuple[float, ...]
    long_name: str
    units: str


@dataclass(frozen=True)
class Array:
    """One recorded array.

    `kind` is ``tensor`` (over all dimensions, kept for the first samples), ``scalar`` (over cells, sample, timestep,
    repeat if the store has it, and `dims`) or ``final`` (over cells, sample and `dims`: one value per trajectory).
    """

    name: str
    kind: Literal["tensor", "scalar", "final"]
    attributes: Mapping[str, Any]
    dtype: str = "float32"
    dims: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of dimensions in `dims` that are neither a sample's nor in `coords`."""
    coords: Mapping[str, Coordinate] = field(default_factory=dict)
    """Values along dimensions in `dims`."""


WRITTEN = Array(
    "written",
    "scalar",
    {"long_name": "recorded values: 0 none, 1 scalars, 3 scalars and tensors", "units": "1"},
    dtype="uint8",
)


@dataclass(frozen=True)
class Schema:
    """The arrays of a run over its grid, and how they are stored.

    Examples
    --------
    >>> import numpy as np
    >>> two, ten = np.arange(2), np.arange(10)
    >>> grid = Grid(
    ...     classifier=("robust",), classifier_input=("x_t",), stabilizer=("none",), guidance_scale=(0.5,),
    ...     label=two, seed=two, timestep=ten[::-1], alphas_cumprod=(ten + 1) / 11, sigma=ten / 10,
    ...     sample_shape=(3, 32, 32), batch_size=2,
    ... )
    >>> gradient = Array("gradient", "tensor", {"units": "1"}, dims=grid.sample_names)
    >>> schema = Schema(grid, (gradient,))
    >>> schema.shape(gradient)
    (1, 1, 1, 1, 2, 10, 3, 32, 32)
    >>> schema.bytes(), schema.files()
    (245780, 4)
    """

    grid: Grid
    arrays: tuple[Array, ...]
    tensor_samples: int = 64
    """Number of samples, from the first, whose tensors are kept."""
    tensor_every: int = 1
    """Interval in timesteps at which tensors are kept, from the first."""
    codec: Literal["none", "lz4"] = "none"
    sharded: bool = False
    """Whether several chunks of a tensor share one object; used in object stores."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all recorded arrays, the marker included."""
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
        """Coordinates of the arrays' own dimensions, by dimension."""
        return {dim: coordinate for array in self.arrays for dim, coordinate in array.coords.items()}

    def _of(self, kind: str) -> tuple[Array, ...]:
        return tuple(array for array in self.arrays if array.kind == kind)

    @property
    def tensor_chunk(self) -> tuple[int, int]:
        """Samples and timesteps of a tensor's chunk, about 1 MB. No chunk extends beyond a block.

        A chunk holds one sample, and a trajectory is split evenly into as few chunks as possible. Trajectories under
        1 MB share a chunk with others. If tensors are not kept at every timestep, a chunk holds one timestep.
        """
        itemsize = max((np.dtype(array.dtype).itemsize for array in self.tensors), default=4)
        one = prod(self.grid.sample_shape) * max(1, self.grid.repeats) * itemsize
        most = max(1, _TENSOR_CHUNK_BYTES // one)
        steps = 1 if self.tensor_every > 1 else ceil(self.grid.timesteps / ceil(self.grid.timesteps / most))
        limit = max(1, min(self.tensor_samples, most // steps))
        whole = self.tensor_every > 1 or steps == self.grid.timesteps
        return (_divisor(self.grid.block, limit) if whole else 1), steps

    def keeps_tensor(self, step: int) -> bool:
        """Whether tensors are kept at a step."""
        return bool(self.tensors) and step % self.tensor_every == 0

    def kept_samples(self, first_sample: int, samples: int) -> int:
        """Number of a block's samples whose tensors are kept."""
        return max(0, min(samples, self.tensor_samples - first_sample))

    def dims(self, array: Array) -> tuple[str, ...]:
        """Names of an array's dimensions."""
        repeat = (REPEAT,) if self.grid.repeats else ()
        time = () if array.kind == "final" else ("timestep", *repeat)
        return (*self.grid.cell_dims, "sample", *time, *array.dims)

    @property
    def repeats(self) -> tuple[int, ...]:
        """Length of the dimension `repeat`; empty if there is none."""
        return (self.grid.repeats,) if self.grid.repeats else ()

    def shape(self, array: Array) -> tuple[int, ...]:
        """Lengths of an array's dimensions."""
        time = () if array.kind == "final" else (self.grid.timesteps, *self.repeats)
        return (*self.grid.cells, self.grid.samples, *time, *self.extra(array))

    def chunks(self, array: Array) -> tuple[int, ...]:
        """Shape of an array's chunks."""
        samples, steps = self.grid.block, self.scalar_chunk_steps
        if array.kind == "tensor":
            samples, steps = self.tensor_chunk
        elif array.kind == "final":
            samples = self._final_chunk(array)
        time = () if array.kind == "final" else (steps, *self.repeats)
        return (*self._cell, samples, *time, *self.extra(array))

    @property
    def _cell(self) -> tuple[int, ...]:
        """A chunk's size along the dimensions of cells: one cell."""
        return (1,) * len(self.grid.cell_dims)

    def _final_chunk(self, array: Array) -> int:
        """Samples of a final array's chunk, at most 4 MB where that is possible; no chunk extends beyond a block."""
        limit = _CHUNK_BYTES // (prod(self.extra(array)) * np.dtype(array.dtype).itemsize)
        return _divisor(self.grid.block, limit)

    def shards(self, array: Array) -> tuple[int, ...] | None:
        """Shape of the objects that hold several chunks; None if each chunk is an object."""
        if not self.sharded or array.kind != "tensor":
            return None
        return (*self._cell, self.stored_samples, self.tensor_chunk[1], *self.repeats, *self.extra(array))

    @property
    def stored_samples(self) -> int:
        """Samples in one stored object of a tensor: whole chunks, and no object extends beyond a block."""
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
        """Timesteps of a scalar's chunk."""
        return min(_SCALAR_CHUNK_STEPS, self.grid.timesteps)

    def bytes(self) -> int:
        """Size of the complete store in bytes, uncompressed, without metadata."""
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
        """Largest number of files of the complete store."""
        stored = ((a, self.shards(a) or self.chunks(a)) for a in (*self.arrays, WRITTEN))
        return sum(1 + prod(map(ceil, np.divide(self._kept_shape(array), size))) for array, size in stored)

    def _kept_shape(self, array: Array) -> tuple[int, ...]:
        """Shape of the part of an array that is ever written."""
        shape = list(self.shape(array))
        if array.kind == "tensor":
            first = len(self.grid.cell_dims)
            shape[first] = self.kept_samples(0, self.grid.samples)
            shape[first + 1] = ceil(self.grid.timesteps / self.tensor_every)
        return tuple(shape)


def _divisor(number: int, limit: int) -> int:
    """The largest divisor of a number that is at most `limit`, at least 1."""
    return max(d for d in range(1, max(1, min(limit, number)) + 1) if number % d == 0)


def fill_value(dtype: Any) -> Any:
    """NaN for floats, 0 for the marker and other unsigned integers, -1 for signed ones."""
    if dtype is str:
        return ""
    return {"f": np.nan, "i": -1, "u": 0}[np.dtype(dtype).kind]
