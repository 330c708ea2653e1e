"""Single chunks of a stored array.

Arrays that are stored as they are, without a codec, are read straight from the files of their chunks: of these no more
than is asked for, and about ten times as fast as through zarr. All others are read by zarr.
"""

import os
import sys
from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BytesCodec

from gradscope.errors import GradscopeError

Index = tuple[int, ...]
Stamp = tuple[int, int, int]


class Chunks:
    """The chunks of one array of a store on this machine's disk, for reading.

    A chunk is replaced as a whole by whoever writes the store, so none is ever seen half written.
    """

    def __init__(self, store: Path, array: zarr.Array[Any]) -> None:
        self.array = array
        self.shape: Index = array.shape
        """Of the array,"""
        self.size: Index = array.chunks
        """of a chunk,"""
        self.grid: Index = array.cdata_shape
        """and the number of chunks, along each dimension."""
        self._folder = f"{store}/{array.path}"
        self._plain = _is_plain(array)

    def __iter__(self) -> Iterator[Index]:
        """Indices of all chunks."""
        return np.ndindex(self.grid)

    def place(self, index: Index) -> tuple[slice, ...]:
        """Where in the array a chunk is."""
        sizes = zip(index, self.size, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, end)) for i, size, end in sizes)

    def stamp(self, index: Index) -> Stamp | None:
        """Changes whenever the chunk is written; None where it never was."""
        return stamp(self._file(index))

    def index(self, at: Index) -> Index:
        """Which chunk holds an element, of which only the first indices need be given."""
        inner = (0,) * (len(self.grid) - len(at))
        return (*(i // size for i, size in zip(at, self.size, strict=False)), *inner)

    def read(self, index: Index) -> NDArray[Any]:
        """One chunk; fill values where it was never written.

        Raises GradscopeError where it cannot be read, as `around`, `part` and `whole` do.
        """
        place = self.place(index)
        if not self._plain:
            return self.part(place)
        values = self._straight(index, 0, self.size)
        return values[tuple(slice(part.stop - part.start) for part in place)]

    def around(self, at: Index) -> NDArray[Any]:
        """What is read at once with an element: its neighbours along the last dimension given, in the same chunk.

        The element itself is at ``at[-1] % size[len(at) - 1]`` of it.
        """
        axis = len(at) - 1
        outer, inner = self.size[:axis], self.size[axis:]
        first = at[-1] - at[-1] % inner[0]
        sizes = (min(inner[0], self.shape[axis] - first), *self.shape[len(at) :])
        if not self._plain or any(number > 1 for number in self.grid[len(at) :]):
            return self.part((*at[:-1], slice(first, first + sizes[0])))
        row = int(np.ravel_multi_index([i % size for i, size in zip(at, outer, strict=False)], outer))
        return self._straight(self.index(at), row * prod(inner), inner)[tuple(map(slice, sizes))]

    def whole(self) -> NDArray[Any]:
        """The whole array."""
        if not self._plain:
            return self.part(...)
        values = np.empty(self.shape, dtype=self.array.dtype)
        for index in self:
            values[self.place(index)] = self.read(index)
        return values

    def part(self, where: Any) -> NDArray[Any]:
        """What zarr reads there: ``array[where]``."""
        try:
            return np.asarray(self.array[where])
        except (OSError, ValueError, RuntimeError) as error:
            raise GradscopeError(f"{self._folder} is damaged: {error}") from error

    def _file(self, index: Index) -> str:
        return f"{self._folder}/{self.array.metadata.encode_chunk_key(index)}"

    def _straight(self, index: Index, first: int, shape: Index) -> NDArray[Any]:
        """Elements of a chunk's file, from the `first` on."""
        dtype = self.array.dtype
        try:
            with open(self._file(index), "rb", buffering=0) as file:
                file.seek(first * dtype.itemsize)
                values = np.fromfile(file, dtype, prod(shape))
        except FileNotFoundError:
            return np.full(shape, self.array.fill_value, dtype)
        except OSError as error:
            raise GradscopeError(f"{self._file(index)} cannot be read: {error.strerror}") from error
        if len(values) < prod(shape):
            raise GradscopeError(f"{self._file(index)} is damaged: it is too short for its chunk")
        return values.reshape(shape)


def stamp(file: str | Path) -> Stamp | None:
    """Changes whenever a file is replaced or written; None where there is none."""
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _is_plain(array: zarr.Array[Any]) -> bool:
    """Whether a chunk's file is the chunk's elements in this machine's order of bytes, and nothing else."""
    codecs: tuple[Any, ...] = getattr(array.metadata, "codecs", ())
    if len(codecs) != 1 or not isinstance(codecs[0], BytesCodec):
        return False
    endian = codecs[0].endian
    return endian is None or endian.value == sys.byteorder
