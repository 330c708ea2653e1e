"""Read and write single chunks of a stored array.

The chunks of uncompressed arrays in a folder are read and written directly as files, several times as fast as through
zarr. All other chunks go through zarr.
"""

import os
import sys
from collections.abc import Iterator
from functools import lru_cache
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from zarr.codecs import BytesCodec, Crc32cCodec

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import regular, replace_file
from gradscope.store.locations.location import StorePath, locate
from gradscope.store.untrusted.chunk_bytes import SUM, UNSOUND, is_sum_of

_RUN_BYTES = 64 * 1024  # up to this size, reading unwanted elements in between is cheaper than a second read

Index = tuple[int, ...]
Where = tuple[int | slice, ...]
Stamp = tuple[int, ...]


class Chunks:
    """The chunks of one array of a store.

    A writer replaces whole chunks, so a reader never sees half of one. A chunk with a checksum is read whole and
    checked. Older stores have chunks without a checksum: only the requested elements are read, and small gaps.

    Parameters
    ----------
    store
        The store.
    array
        One of its arrays.
    durable
        Flush data to disk (fsync) before `write` returns. Chunks that go through zarr are flushed if the array's store
        is a durable `Replacing`.
    complete
        Whether every chunk is written, so that `select` refuses one that is missing.
    """

    def __init__(self, store: StorePath, array: zarr.Array[Any], durable: bool = False, complete: bool = False) -> None:
        self._location = location = locate(store)
        self._complete = complete
        self.array = array
        self.shape: Index = array.shape
        """Shape of the array."""
        self.size: Index = array.chunks
        """Shape of a chunk."""
        self.grid: Index = array.cdata_shape
        """Number of chunks along each dimension."""
        self._folder = f"{location}/{array.path}"
        self._bytes = prod(array.chunks) * array.dtype.itemsize
        self._plain, self._summed = _is_plain(array), _is_summed(array)
        if location.path is None:
            self._plain = False
        self._durable = durable and location.path is not None
        self._errors: tuple[type[Exception], ...] = (*location.errors, OSError, ValueError, RuntimeError)
        self._flat = "/" not in array.metadata.encode_chunk_key((0,) * array.ndim)
        sizes = [prod(self.size[axis:]) * array.dtype.itemsize for axis in range(len(self.size) + 1)]
        self._steps = sizes[1:]  # bytes from one element to the next along each dimension
        self._axis = max(0, next(axis for axis, size in enumerate(sizes) if size <= _RUN_BYTES) - 1)

    def __iter__(self) -> Iterator[Index]:
        """Indices of all chunks."""
        return np.ndindex(self.grid)

    def place(self, index: Index) -> tuple[slice, ...]:
        """Slices of the array that a chunk covers."""
        sizes = zip(index, self.size, self.shape, strict=True)
        return tuple(slice(i * size, min((i + 1) * size, end)) for i, size, end in sizes)

    def stamp(self, index: Index) -> Stamp | None:
        """A value that changes whenever the chunk is written; None if it was never written."""
        return stamp(self._file(index))

    def index(self, at: Index) -> Index:
        """Index of the chunk that holds an element; trailing indices that `at` leaves out are 0."""
        inner = (0,) * (len(self.grid) - len(at))
        return (*(i // size for i, size in zip(at, self.size, strict=False)), *inner)

    def read(self, index: Index) -> NDArray[Any]:
        """Read one chunk; if it was never written, all elements are the fill value.

        Raises
        ------
        GradscopeError
            A chunk cannot be read or is damaged; `around`, `select` and `whole` raise it, too.
        """
        return self.select(self.place(index))

    def around(self, at: Index) -> NDArray[Any]:
        """Read an element together with its neighbours in the same chunk, along the last dimension of `at`.

        In the result the element has the index ``at[-1] % size[len(at) - 1]``.
        """
        axis = len(at) - 1
        first = at[-1] - at[-1] % self.size[axis]
        return self.select((*at[:-1], slice(first, first + self.size[axis])))

    def whole(self) -> NDArray[Any]:
        """Read the whole array."""
        return self.select(())

    def select(self, where: Where) -> NDArray[Any]:
        """Read ``array[where]``, for integers and slices with positive steps."""
        values = self._select(where) if self._plain else self.part(where)
        if self._complete:
            self.refuse_missing(where, np.ones(values.shape, bool), values, len(self.shape))
        return values

    def _select(self, where: Where) -> NDArray[Any]:
        wanted = self._ranges(where)
        values = np.empty([len(r) for r in wanted], self.array.dtype)
        space = np.empty(self.size if self._summed else 0, self.array.dtype)
        for parts in product(*(pieces(r, size) for r, size in zip(wanted, self.size, strict=True))):
            index, there, inside = zip(*parts, strict=True)
            if self._summed:
                self._fill_checked(values[there], index, inside, space)
            else:
                self._fill(values[there], index, inside)
        return values[tuple(slice(None) if isinstance(w, slice) else 0 for w in where)]

    def refuse_missing(self, where: Where, written: NDArray[np.bool_], values: NDArray[Any], over: int) -> None:
        """Raise GradscopeError if a chunk does not exist though the marker says that elements of it are written.

        Reading takes such a chunk for one that was never written. Copies that xarray wrote are not checked: they leave
        out chunks of fill values.

        Parameters
        ----------
        where
            The part of the array that was read.
        written
            Whether each element is written, along the first dimensions.
        values
            ``array[where]``.
        over
            Number of the array's dimensions that `written` has, those at which `where` has an integer included.
        """
        if not self._flat or not written.any():
            return
        wanted = self._ranges(where)
        lengths = [len(r) for r in wanted]
        values, written = values.reshape(lengths), written.reshape(lengths[:over])
        for parts in product(*(pieces(r, size) for r, size in zip(wanted, self.size, strict=True))):
            index, there, _ = zip(*parts, strict=True)
            first = values[tuple(part.start for part in there)]  # of a missing chunk every element is the fill value
            if self._is_fill(first) and written[there[:over]].any() and self.is_missing(index):
                raise GradscopeError(
                    f"{self._folder}/{self._key(index)} is missing, though its values are marked as written: it is "
                    "damaged, or the store was replaced since it was opened"
                )

    def is_missing(self, index: Index) -> bool:
        """Whether the file or object that holds a chunk does not exist, or cannot be read."""
        stored = self.array.shards or self.array.chunks
        stored_index = tuple(i * size // whole for i, size, whole in zip(index, self.array.chunks, stored, strict=True))
        return self._location.read(f"{self.array.path}/{self._key(stored_index)}", 0) is None

    def _is_fill(self, value: Any) -> bool:
        fill: Any = self.array.fill_value
        return bool(value == fill or (value != value and fill != fill))

    def part(self, where: Any) -> NDArray[Any]:
        """Read ``array[where]`` through zarr, for any index that zarr takes."""
        try:
            return np.asarray(self.array[where])
        except self._errors as error:
            raise GradscopeError(f"{self._folder} is damaged: {error}") from error

    def write(self, where: Where, values: NDArray[Any]) -> None:
        """Set ``array[where] = values``. A chunk that is written whole replaces the earlier one atomically."""
        wanted = self._ranges(where)
        ends = zip(wanted, self.size, self.shape, strict=True)
        whole = all(r.start % size == 0 and (r.stop % size == 0 or r.stop == end) for r, size, end in ends)
        if not (self._plain and whole and self._flat):
            self.array[where] = values
            return
        values = values.reshape([len(r) for r in wanted])
        for parts in product(*(pieces(r, size) for r, size in zip(wanted, self.size, strict=True))):
            index, there, inside = zip(*parts, strict=True)
            chunk = values[there]
            if chunk.shape != self.size:  # it extends beyond the array's end
                chunk = np.full(self.size, self.array.fill_value, self.array.dtype)
                chunk[inside] = values[there]
            chunk = np.ascontiguousarray(chunk, self.array.dtype)
            tail = crc32c(chunk).to_bytes(4, "little") if self._summed else b""
            replace_file(self._file(index), chunk.data, tail, durable=self._durable)

    def _ranges(self, where: Where) -> list[range]:
        rest = [slice(None)] * (len(self.shape) - len(where))
        both = zip((*where, *rest), self.shape, strict=True)
        return [range(*w.indices(size)) if isinstance(w, slice) else range(w, w + 1) for w, size in both]

    def _file(self, index: Index) -> str:
        return f"{self._folder}/{self._key(index)}"

    def _key(self, index: Index) -> str:
        return self.array.metadata.encode_chunk_key(index)

    def _fill_checked(self, out: NDArray[Any], index: Index, inside: tuple[slice, ...], space: NDArray[Any]) -> None:
        """Read a chunk, check its checksum, and put the slices `inside` of it into `out`, by way of `space`."""
        whole = out.shape == self.size and out.flags.c_contiguous  # then it is read to where it belongs
        chunk = out if whole else space
        if not self._is_read(index, chunk):
            out[...] = self.array.fill_value
        elif not whole:
            out[...] = chunk[inside]

    def _is_read(self, index: Index, chunk: NDArray[Any]) -> bool:
        """Read a chunk into `chunk`, and check its checksum; False if it was never written."""
        file, data = self._file(index), chunk.reshape(-1).view(np.uint8)
        try:
            with regular(file) as content:
                size = os.fstat(content.fileno()).st_size
                if size != len(data) + SUM:
                    raise GradscopeError(f"{file} is damaged: it has {size} bytes, wanted {len(data) + SUM}")
                read = 0
                while read < len(data) and (count := content.readinto(data[read:].data)):
                    read += count
                checksum = content.read(SUM)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise GradscopeError(f"{file} cannot be read: {error.strerror}") from error
        if read < len(data) or not is_sum_of(checksum, data):
            raise GradscopeError(f"{file} is damaged: {UNSOUND}")
        return True

    def _fill(self, out: NDArray[Any], index: Index, inside: tuple[slice, ...]) -> None:
        """Read the slices `inside` of a chunk into `out`, in the longest possible contiguous runs."""
        axis = self._axis
        while axis < len(inside) - 1 and inside[axis].stop - inside[axis].start == 1:
            axis += 1  # one index only: runs along this dimension would read unwanted elements
        while axis and inside[axis] == slice(0, self.size[axis], 1) and out[(0,) * (axis - 1)].flags.c_contiguous:
            axis -= 1
        run = inside[axis]
        shape = (run.stop - run.start, *self.size[axis + 1 :])
        picked = (slice(None, None, run.step), *inside[axis + 1 :])
        try:
            with regular(self._file(index)) as file:
                for at in np.ndindex(out.shape[:axis]):
                    outer = [part.start + i * part.step for i, part in zip(at, inside, strict=False)]
                    file.seek(sum(i * step for i, step in zip((*outer, run.start), self._steps, strict=False)))
                    target = out[at]
                    direct = target.shape == shape and target.flags.c_contiguous
                    values = target if direct else np.empty(shape, out.dtype)
                    if file.readinto(values.data) < values.nbytes:
                        raise GradscopeError(f"{self._file(index)} is damaged: it is too short for its chunk")
                    if not direct:
                        target[...] = values[picked]
        except FileNotFoundError:
            out[...] = self.array.fill_value
        except OSError as error:
            raise GradscopeError(f"{self._file(index)} cannot be read: {error.strerror}") from error


@lru_cache(1024)
def pieces(wanted: range, size: int) -> tuple[tuple[int, slice, slice], ...]:
    """Cut the indices `wanted` along one dimension into pieces, one for each chunk of `size`.

    A piece is the number of the chunk, the slice of `wanted` that it holds, and their slice of the chunk.
    """
    found, done = [], 0
    while done < len(wanted):
        number, first = divmod(wanted[done], size)
        count = min(len(wanted) - done, (size - 1 - first) // wanted.step + 1)
        inside = slice(first, first + (count - 1) * wanted.step + 1, wanted.step)
        found.append((number, slice(done, done + count), inside))
        done += count
    return tuple(found)


def stamp(file: str | Path) -> Stamp | None:
    """A value that changes whenever a file is replaced or written; None if there is no file."""
    try:
        about = os.stat(file)
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size, about.st_ino


def _is_plain(array: zarr.Array[Any]) -> bool:
    """Whether a chunk's file holds bare elements in this machine's byte order, with or without a checksum."""
    first, *further = getattr(array.metadata, "codecs", ()) or (None,)
    if not isinstance(first, BytesCodec) or (further and not _is_summed(array)):
        return False
    return first.endian is None or first.endian.value == sys.byteorder


def _is_summed(array: zarr.Array[Any]) -> bool:
    """Whether a checksum, and nothing else, follows the elements."""
    _, *further = getattr(array.metadata, "codecs", ()) or (None,)
    return len(further) == 1 and isinstance(further[0], Crc32cCodec)
