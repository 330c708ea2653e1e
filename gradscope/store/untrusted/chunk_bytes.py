"""Check the bytes of a stored chunk without decoding them: length, checksum, decoded size, and the index of a shard.

Decoders trust the headers of their input; nothing here does.
"""

import sys
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from google_crc32c import value as crc32c
from numpy.typing import NDArray
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, ShardingCodec, ZstdCodec

SUM = 4
"""Bytes of a checksum."""
_BLOSC_HEADER = 16
_ABSENT = np.uint64(2**64 - 1)

_ZSTD = 0xFD2FB528
COMPRESSIONS = ("blosc", "zstd")
"""Codecs whose output gives its decoded size in a header."""
TEXT = 1024
"""Largest average size of a text in bytes."""

UNSOUND = "its checksum does not match its bytes"
UNSOUND_INDEX = "the checksum of its index does not match its bytes"

Bytes = NDArray[np.uint8]


def claimed(content: Bytes, compression: str) -> int | None:
    """Decoded size in bytes that the header of compressed bytes gives; None if it gives none."""
    if compression == "blosc":
        return number(content[4:8]) if len(content) >= _BLOSC_HEADER else None
    if len(content) < 5 or number(content[:4]) != _ZSTD:
        return None
    about = int(content[4])
    single = about >> 5 & 1  # single segment: the header leaves out the window's size
    length = (single, 2, 4, 8)[about >> 6]
    first = 6 - single + (0, 1, 2, 4)[about & 3]  # after the dictionary's number
    field = content[first : first + length]
    if not length or len(field) < length:
        return None
    return number(field) + 256 * (length == 2)


def number(content: Bytes) -> int:
    """An unsigned integer, its lowest byte first."""
    return int.from_bytes(content.tobytes(), "little")


def flaw(content: bytes, array: Any, inside: Sequence[int]) -> str | None:
    """Say what is wrong with the stored bytes of a chunk (or shard) of a zarr array; None if they are sound.

    `inside` is the shape of the part of the chunk that lies inside the array.
    """
    shape = array.shards or array.chunks
    itemsize = None if array.dtype.hasobject or array.dtype.kind in "TU" else array.dtype.itemsize
    return _flaw(np.frombuffer(content, np.uint8), array.metadata.codecs, shape, itemsize, inside)


def is_sound(content: Bytes) -> bool:
    """Whether bytes end with their own checksum."""
    return is_sum_of(content[-SUM:].tobytes(), content[:-SUM])


def is_sum_of(checksum: bytes, content: Bytes) -> bool:
    """Whether a stored checksum is that of these bytes."""
    return len(checksum) == SUM and crc32c(content) == int.from_bytes(checksum, "little")


def is_summed(array: Any) -> bool:
    """Whether checksums cover every byte of the array's chunks."""
    return _is_summed(array.metadata.codecs)


def is_plain(array: Any) -> bool:
    """Whether chunks hold bare elements, with or without a checksum, so that reading needs no decoding."""
    codecs = [codec for codec in array.metadata.codecs if not isinstance(codec, Crc32cCodec)]
    return len(codecs) == 1 and isinstance(codecs[0], BytesCodec)


def most_bytes(array: Any) -> int:
    """Largest size of a stored chunk (or shard) in bytes; codecs that do not compress add little."""
    shape, itemsize = array.shards or array.chunks, max(array.dtype.itemsize, 1)
    if array.dtype.hasobject or array.dtype.kind in "TU":
        return int(prod(shape)) * 2 * TEXT + 1024
    inner = prod(shape) // max(1, prod(array.chunks))
    return int(2 * prod(shape) * itemsize + 64 * inner + 1024)


def _is_summed(codecs: Sequence[Any]) -> bool:
    last = codecs[-1] if codecs else None
    if isinstance(last, ShardingCodec):
        return _is_summed(last.codecs) and _is_summed(last.index_codecs)
    return isinstance(last, Crc32cCodec)


def _flaw(
    content: Bytes, codecs: Sequence[Any], shape: Sequence[int], itemsize: int | None, inside: Sequence[int]
) -> str | None:
    *before, last = codecs
    summed = isinstance(last, Crc32cCodec)
    size = len(content) - SUM * summed
    inner = before[-1] if summed and before else last
    wanted = None if itemsize is None else prod(shape) * itemsize
    if isinstance(inner, BytesCodec) and wanted is not None and size != wanted:
        return f"it has {len(content)} bytes, wanted {wanted + SUM * summed}"
    if size < 0:
        return f"it has only {len(content)} bytes"
    if summed:
        if not is_sound(content):
            return UNSOUND
        content = content[:size]
    if isinstance(inner, BloscCodec | ZstdCodec):
        return _compression_flaw(content, inner, wanted, prod(shape) * (itemsize or TEXT))
    if isinstance(inner, ShardingCodec):
        return _shard_flaw(content, inner, shape, itemsize, inside)
    return None


def _compression_flaw(content: Bytes, codec: BloscCodec | ZstdCodec, wanted: int | None, most: int) -> str | None:
    decoded = claimed(content, "blosc" if isinstance(codec, BloscCodec) else "zstd")
    if decoded is None:
        return f"the header of its {len(content)} bytes does not give their decoded size"
    if isinstance(codec, BloscCodec) and (encoded := number(content[12:_BLOSC_HEADER])) != len(content):
        return f"it has {len(content)} compressed bytes, but its header says {encoded}"
    if decoded > most or (wanted is not None and decoded < wanted):
        return f"it decodes to {decoded} bytes, wanted {most if wanted is None else wanted}"
    return None


def _shard_flaw(
    content: Bytes, codec: ShardingCodec, shape: Sequence[int], itemsize: int | None, inside: Sequence[int]
) -> str | None:
    index_codecs = [type(part) for part in codec.index_codecs]
    if index_codecs not in ([BytesCodec], [BytesCodec, Crc32cCodec]) or sys.byteorder != "little":
        return None  # zarr reads it, or raises an error
    grid = tuple(-(-length // size) for length, size in zip(shape, codec.chunk_shape, strict=True))
    length = 16 * prod(grid) + SUM * (len(index_codecs) == 2)
    if len(content) < length:
        return f"it has {len(content)} bytes, fewer than its index has"
    at_end = codec.index_location.value == "end"
    index = content[-length:] if at_end else content[:length]
    if _flaw(index, codec.index_codecs, (prod(grid), 2), 8, ()):
        return UNSOUND_INDEX
    entries = np.frombuffer(index[: 16 * prod(grid)].tobytes(), "<u8").reshape(-1, 2)
    total = length
    for at, (offset, size) in zip(np.ndindex(grid), entries, strict=True):
        if offset == _ABSENT and size == _ABSENT:
            if all(i * step < end for i, step, end in zip(at, codec.chunk_shape, inside, strict=True)):
                return f"its chunk {at} is missing"
            continue
        if int(offset) + int(size) > len(content):
            return f"its chunk {at} extends beyond its end"
        total += int(size)
        part = content[int(offset) : int(offset) + int(size)]
        if wrong := _flaw(part, codec.codecs, codec.chunk_shape, itemsize, codec.chunk_shape):
            return f"its chunk {at}: {wrong}"
    if total != len(content):
        return f"it has {len(content)} bytes, but its chunks and index have {total}"
    return None
