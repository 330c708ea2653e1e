"""Create zarr arrays, and convert the keys of chunks into indices."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import zarr
from zarr.codecs import BloscCodec, Crc32cCodec

from gradscope.store.schema import fill_value

DOTTED = {"name": "default", "separator": "."}
"""Keys of the chunks of recorded arrays: ``c.0.1`` (xarray writes ``c/0/1``)."""
_CODECS = {"none": (), "lz4": (BloscCodec(cname="lz4", shuffle="bitshuffle", clevel=1),)}


def create_array(
    group: zarr.Group,
    name: str,
    *,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
    dtype: Any,
    dims: Sequence[Any],
    attributes: Mapping[str, Any],
    codec: str = "none",
    shards: tuple[int, ...] | None = None,
    keys: Any = DOTTED,
) -> zarr.Array[Any]:
    """Create an empty array with a CRC-32C checksum in every chunk."""
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        shards=shards,
        dtype=dtype,
        fill_value=fill_value(dtype),
        compressors=(*_CODECS[codec], Crc32cCodec()),
        filters=None,
        dimension_names=dims,
        attributes=dict(attributes),
        chunk_key_encoding=keys,
        config={"write_empty_chunks": True},
    )


def is_dotted(metadata: Mapping[str, Any]) -> bool:
    """Whether an array, given by its metadata, has the chunk keys that gradscope writes. If not, xarray wrote it."""
    settings = metadata.get("chunk_key_encoding")
    return isinstance(settings, dict) and settings.get("configuration", {}).get("separator") == "."


def chunk_index(array: Any, key: str) -> tuple[int, ...] | None:
    """Index of the chunk that a key names; None if it names no chunk of the array."""
    grid = grid_of(array)
    index = tuple(int(number) for number in re.findall(r"[0-9]+", key.partition("c")[2] or key)) if grid else ()
    if len(index) != len(grid) or any(i >= n for i, n in zip(index, grid, strict=True)):
        return None
    return index if array.metadata.encode_chunk_key(index) == key else None


def grid_of(array: Any) -> tuple[int, ...]:
    """Number of stored objects (chunks or shards) along each dimension."""
    sizes = array.shards or array.chunks
    return tuple(-(-length // max(1, size)) for length, size in zip(array.shape, sizes, strict=True))
