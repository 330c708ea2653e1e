"""Read a stranger's store through zarr: chunks that are damaged, too large or not regular files raise an error.

Decoders trust the headers of their input, so that a few kB could become many GB.
"""

import os
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from math import prod

import numpy as np
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import check_regular
from gradscope.store.locations.folder import ROOT
from gradscope.store.locations.location import Location, reason
from gradscope.store.untrusted.arrays import Array
from gradscope.store.untrusted.chunk_bytes import (
    COMPRESSIONS,
    SUM,
    TEXT,
    UNSOUND,
    UNSOUND_INDEX,
    Bytes,
    claimed,
    is_sound,
    number,
)
from gradscope.store.untrusted.root import Root


@dataclass(frozen=True)
class _Chunks:
    """How the chunks of an array are stored."""

    size: int
    """Bytes of a decoded chunk."""
    is_plain: bool
    """Whether a stored chunk holds bare elements, with or without a checksum."""
    codecs: tuple[str, ...]
    shard: int
    """Number of chunks in a file; 0 if each chunk has its own file."""
    index: int
    """Bytes of the index at the end of a file of several chunks."""
    index_summed: bool
    """Whether the index ends with a checksum."""

    @classmethod
    def of(cls, array: Array) -> "_Chunks":
        """From the metadata of an array."""
        chunk, count, index, summed = array.stored, 0, 0, False
        if shard := array.shard:
            count = prod(length // size for length, size in zip(chunk, shard.chunk_shape, strict=True))
            summed = len(shard.index_codecs) > 1
            index = 16 * count + 4 * summed
            chunk = shard.chunk_shape
        codecs = tuple(codec.name for codec in (shard or array).codecs)
        plain = set(codecs) <= {"bytes", "transpose", "crc32c"}
        return cls(prod(chunk) * array.itemsize, plain, codecs, count, index, summed)

    @property
    def most(self) -> int:
        """Largest size of a stored chunk in bytes: compression makes random data a little longer."""
        return 2 * self.size + 1024

    def flaw(self, content: Bytes) -> str | None:
        """Why a stored chunk must not be decoded; None if it may be."""
        if len(content) > self.most:
            return f"it has more than {self.most} bytes"
        if self.codecs[-1] == "crc32c" and not is_sound(content):
            return UNSOUND
        wanted = self.size + SUM * self.codecs.count("crc32c")
        if self.is_plain and len(content) != wanted:
            return f"it has {len(content)} bytes, wanted {wanted}"
        if self.codecs[0] == "vlen-utf8" and not set(self.codecs) & {*COMPRESSIONS}:
            if (count := number(content[:4])) != self.size // TEXT:  # the decoder makes room for them
                return f"it claims {count} texts, wanted {self.size // TEXT}"
        for compression in (codec for codec in self.codecs if codec in COMPRESSIONS):
            if (size := claimed(content, compression)) is None:
                return "its header does not give its decoded size"
            if size > self.size + 4 * len(self.codecs):  # checksums
                return f"it decodes to {size} bytes, wanted {self.size}"
        return None

    def shard_flaw(self, content: Bytes) -> str | None:
        """The same for a file of several chunks."""
        index = content[max(0, len(content) - self.index) :]
        if what := self.index_flaw(index):
            return what
        found = np.frombuffer(index[: 16 * self.shard].tobytes(), "<u8").reshape(-1, 2)
        there = (content[start : start + size] for start, size in found.tolist() if start < len(content))
        return next(filter(None, map(self.flaw, there)), None)

    def index_flaw(self, content: Bytes) -> str | None:
        """The same for the index of such a file."""
        if len(content) < self.index:  # zarr takes an empty file for one that was never written
            return f"it has {len(content)} bytes, its index alone has {self.index}"
        return UNSOUND_INDEX if self.index_summed and not is_sound(content) else None


class Replaced(GradscopeError):
    """A chunk is missing: its array was replaced since the store was opened, or the store is damaged."""


class Bounded(WrapperStore[Store]):
    """A zarr store that reads the arrays of a location, which `root` describes.

    Reading raises GradscopeError if a chunk is larger than the metadata allow, fails its checksum, or is not a file;
    `Replaced` if it is missing.
    """

    def __init__(self, location: Location, root: Root) -> None:
        super().__init__(LocalStore(location.path, read_only=True) if location.path is not None else location.zarr)
        self._where, self._errors = str(location), location.errors
        self._chunks = {name: _Chunks.of(array) for name, array in root.arrays.items()}
        recorded = root.attributes.recorded if "recorded" in root.attributes.model_fields_set else root.arrays
        self._whole = {name for name, array in root.arrays.items() if name not in recorded and array.is_dotted}

    def _with_store(self, store: Store) -> "Bounded":
        other = copy(self)
        other._store = store
        return other

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if isinstance(self._store, LocalStore):
            with suppress(OSError):  # a missing file is left to zarr
                check_regular(os.lstat(self._store.root / key), f"{self._where}/{key}")
        name, _, rest = key.partition("/")
        chunks = self._chunks.get(name)
        if chunks is None or rest in ("", ROOT):
            return await self._read(key, prototype, byte_range)
        whole, most, at_end = byte_range is None, chunks.most, isinstance(byte_range, SuffixByteRequest)
        if whole:
            most = max(1, chunks.shard) * most + chunks.index
            if isinstance(self._store, LocalStore):  # a sparse file may have any length
                byte_range = RangeByteRequest(0, most + 1)
        elif isinstance(byte_range, RangeByteRequest) and byte_range.end - byte_range.start > most:
            raise GradscopeError(f"{self._where}/{key} is damaged: a chunk in it has more than {most} bytes")
        content = await self._read(key, prototype, byte_range)
        if content is None and name in self._whole:  # zarr would treat it as never written
            raise Replaced(
                f"{self._where}/{key} is missing: the store was evaluated or grew since it was opened, open it again; "
                "or it is damaged"
            )
        flaw = chunks.index_flaw if at_end else chunks.shard_flaw if chunks.shard and whole else chunks.flaw
        if content is not None and (what := flaw(content.as_numpy_array().view(np.uint8))):
            raise GradscopeError(f"{self._where}/{key} is damaged: {what}")
        return content

    async def _read(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None) -> Buffer | None:
        try:
            return await super().get(key, prototype, byte_range)
        except self._errors as error:
            raise GradscopeError(f"{self._where}/{key} cannot be read: {reason(error)}") from error
