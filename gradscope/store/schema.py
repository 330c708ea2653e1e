"""What a store holds: dimensions, arrays, chunks and sizes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil, prod
from typing import Any, Literal

import numpy as np

from gradscope.text import check_name

VERSION = 1
CELL_DIMS = ("classifier", "classifier_input", "stabilizer", "guidance_scale")
IMAGE_DIMS = ("channel", "height", "width")
COORDINATES = (*CELL_DIMS, "sample", "label", "seed", "timestep", "step", "alphas_cumprod", "sigma")
AUXILIARY = "step alphas_cumprod sigma label seed"
"""The attribute `coordinates`: those that are not along a dimension of their own."""

_CHUNK_BYTES = 4 * 2**20
_TENSOR_CHUNK_STEPS = 10
_TENSOR_CHUNK_SAMPLES = 8
_SCALAR_CHUNK_STEPS = 50


@dataclass(frozen=True)
class Grid:
    """Coordinates of a run: cells, samples, timesteps and the image's shape.

    Examples
    --------
    >>> grid = Grid(
    ...     classifier=("mine",),
    ...     classifier_input=("x_t",),
    ...     stabilizer=("none",),
    ...     guidance_scale=(0.0, 0.5),
    ...     label=np.array([0, 1]),
    ...     seed=np.array([5, 6]),
    ...     timestep=np.array([2, 1, 0]),
    ...     alphas_cumprod=np.array([0.1, 0.5, 0.9]),
    ...     sigma=np.array([0.3, 0.2, 0.0]),
    ...     image_shape=(3, 8, 8),
    ...     batch_size=2,
    ... )
    >>> grid.cells
    (1, 1, 1, 2)
    """

    classifier: tuple[str, ...]
    classifier_input: tuple[str, ...]
    stabilizer: tuple[str, ...]
    guidance_scale: tuple[float, ...]
    label: np.ndarray
    """Target class of each sample, ``(samples,)``."""
    seed: np.ndarray
    """Seed of each sample's generator, ``(samples,)``."""
    timestep: np.ndarray
    """In sampling order, descending, ``(timesteps,)``."""
    alphas_cumprod: np.ndarray
    sigma: np.ndarray
    image_shape: tuple[int, int, int]
    """Channel, height, width."""
    batch_size: int
    """Samples of a block."""

    def __post_init__(self) -> None:
        for dim in ("classifier", "classifier_input", "stabilizer"):
            for name in getattr(self, dim):
                check_name(name, dim)

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of values of each of `CELL_DIMS`."""
        return tuple(len(getattr(self, dim)) for dim in CELL_DIMS)

    @property
    def samples(self) -> int:
        return len(self.label)

    @property
    def timesteps(self) -> int:
        return len(self.timestep)

    @property
    def block(self) -> int:
        """Samples of a block; the last one may have fewer."""
        return min(self.batch_size, self.samples)


@dataclass(frozen=True)
class Coordinate:
    """Values along a dimension of an array's own."""

    values: tuple[str, ...] | tuple[float, ...]
    long_name: str
    units: str


@dataclass(frozen=True)
class Array:
    """One recorded array.

    `kind` is ``tensor`` (over all dimensions, for the first samples only), ``scalar`` (over cells, sample, timestep and
    `dims`) or ``final`` (over cells, sample and `dims`, once a trajectory).
    """

    name: str
    kind: Literal["tensor", "scalar", "final"]
    attributes: Mapping[str, str]
    dtype: str = "float32"
    dims: tuple[str, ...] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the dimensions in `dims` that are neither the image's nor in `coords`."""
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
    def flush_steps(self) -> int:
        """Number of timesteps that are written together."""
        return self.tensor_chunk[1] if self.tensor_every == 1 else _TENSOR_CHUNK_STEPS

    @property
    def tensor_chunk(self) -> tuple[int, int]:
        """Samples and timesteps of a tensor's chunk: no chunk reaches over a block's end."""
        itemsize = max((np.dtype(array.dtype).itemsize for array in self.tensors), default=4)
        image = prod(self.grid.image_shape) * itemsize
        steps = 1 if self.tensor_every > 1 else min(_TENSOR_CHUNK_STEPS, self.grid.timesteps)
        limit = max(1, min(_TENSOR_CHUNK_SAMPLES, self.tensor_samples, _CHUNK_BYTES // (image * steps)))
        samples = max(d for d in range(1, limit + 1) if self.grid.block % d == 0)
        return samples, max(1, min(steps, _CHUNK_BYTES // (image * samples)))

    def keeps_tensor(self, step: int) -> bool:
        return bool(self.tensors) and step % self.tensor_every == 0

    def kept_samples(self, first_sample: int, samples: int) -> int:
        """How many of a block's samples have their tensors kept."""
        return max(0, min(samples, self.tensor_samples - first_sample))

    def dims(self, array: Array) -> tuple[str, ...]:
        time = () if array.kind == "final" else ("timestep",)
        return (*CELL_DIMS, "sample", *time, *array.dims)

    def shape(self, array: Array) -> tuple[int, ...]:
        time = () if array.kind == "final" else (self.grid.timesteps,)
        return (*self.grid.cells, self.grid.samples, *time, *self.extra(array))

    def chunks(self, array: Array) -> tuple[int, ...]:
        samples, steps = self.grid.block, min(_SCALAR_CHUNK_STEPS, self.grid.timesteps)
        if array.kind == "tensor":
            samples, steps = self.tensor_chunk
        elif array.kind == "final":
            samples = self._final_chunk(array)
        time = () if array.kind == "final" else (steps,)
        return (1, 1, 1, 1, samples, *time, *self.extra(array))

    def _final_chunk(self, array: Array) -> int:
        """Samples of a final array's chunk, near 4 MB, whatever a block has; no chunk reaches over a block's end."""
        limit = _CHUNK_BYTES // (prod(self.extra(array)) * np.dtype(array.dtype).itemsize)
        return max(d for d in range(1, max(1, min(limit, self.grid.block)) + 1) if self.grid.block % d == 0)

    def shards(self, array: Array) -> tuple[int, ...] | None:
        """Size of the objects that hold several chunks; None where each has its own."""
        if not self.sharded or array.kind != "tensor":
            return None
        return (1, 1, 1, 1, self.stored_samples, self.tensor_chunk[1], *self.extra(array))

    @property
    def stored_samples(self) -> int:
        """Samples of a block that are in one object of a tensor: whole chunks, and no object reaches over a block."""
        chunk, kept = self.tensor_chunk[0], self.kept_samples(0, self.grid.block)
        if not self.sharded:
            return chunk
        return next(n for n in range(chunk, self.grid.block + 1, chunk) if self.grid.block % n == 0 and n >= kept)

    def extra(self, array: Array) -> tuple[int, ...]:
        """Lengths of the array's own dimensions."""
        sizes = dict(zip(IMAGE_DIMS, self.grid.image_shape, strict=True))
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
            "tensor": kept,
            "scalar": self.grid.samples * self.grid.timesteps,
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
            shape[4] = self.kept_samples(0, self.grid.samples)
            shape[5] = ceil(self.grid.timesteps / self.tensor_every)
        return tuple(shape)


def fill_value(dtype: Any) -> Any:
    """NaN for floats, 0 for the marker and other unsigned integers, -1 for signed ones."""
    if dtype is str:
        return ""
    return {"f": np.nan, "i": -1, "u": 0}[np.dtype(dtype).kind]
