"""Add arrays to a store, or replace some, atomically: a reader finds all of the old ones or all of the new ones.

The root's metadata hold the metadata of every array, which say how the files of its chunks are named. New chunks are
written beside the old ones under other names. Then the root is replaced, so that it names the new chunks, and the old
ones are removed. A journal lists the arrays that are being replaced. If the process is killed, the next process that
writes into the store removes what it left.
"""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from math import prod
from typing import Any

import xarray as xr
import zarr
from zarr.storage import MemoryStore

from gradscope.store.arrays import DOTTED, chunk_index, create_array
from gradscope.store.attributes import as_texts
from gradscope.store.coordinates import coordinates
from gradscope.store.locations.location import ROOT, Location, StorePath, locate, writing
from gradscope.store.root import Root
from gradscope.store.schema import WRITTEN, Schema
from gradscope.store.untrusted.checks import NAME
from gradscope.store.untrusted.content import check_links

JOURNAL = ".evaluation.partial"
"""Key of the list of arrays that are being replaced."""
_CHUNK_BYTES = 4 * 2**20
_OTHER = {"name": "v2", "separator": "."}
"""Keys of chunks that differ from those of `DOTTED` and from those that xarray writes."""


def add_variables(where: StorePath, variables: xr.Dataset, instead_of: Iterable[str] = ()) -> None:
    """Add variables and their coordinates to a store, and set `variables.attrs` on it, all at once.

    They replace arrays of the same name and those named in `instead_of`. If the process is killed, the store is as it
    was before, or complete; `clear` removes the leftovers.
    """
    _replace(locate(where), variables.variables, {*instead_of}, variables.attrs, {})


def grow(where: StorePath, schema: Schema, attributes: Mapping[str, Any]) -> None:
    """Enlarge the arrays of a store along cells and samples, replace its coordinates, set attributes, all at once.

    Parameters
    ----------
    where
        The store.
    schema
        Its schema, with a grid that has further cells or samples at the end, or other values of coordinates. Chunks
        have their old sizes and places.
    attributes
        Attributes to set.
    """
    shapes = {array.name: schema.shape(array) for array in (*schema.arrays, WRITTEN)}
    _replace(locate(where), coordinates(schema), set(), attributes, shapes)


def _replace(
    location: Location,
    variables: Mapping[Any, xr.Variable],
    instead_of: set[str],
    attributes: Mapping[Any, Any],
    shapes: Mapping[str, tuple[int, ...]],
) -> None:
    """Add or replace arrays, and give others new shapes, atomically."""
    with writing(location):
        clear(location)
        root = Root(location)
        metadata, chunks = _encode(variables, root.arrays)
        replaced = instead_of | metadata.keys()
        location.replace(JOURNAL, json.dumps(sorted(replaced | shapes.keys())).encode())
        try:
            for key, content in chunks.items():
                location.replace(key, content)
            root = Root(location)  # a recording may have set its status in the meantime
            root.arrays = {name: array for name, array in root.arrays.items() if name not in replaced} | metadata
            for name, shape in shapes.items():
                root.arrays[name] = root.arrays[name] | {"shape": list(shape)}
            root.attributes |= as_texts(attributes)
            root.write()
        finally:
            clear(location)


def clear(location: Location) -> None:
    """Remove what an earlier replacement left: chunks of old arrays, or of new ones that were never completed.

    Of a recorded array only its own copy of the metadata is brought up to date.
    """
    if location.read(JOURNAL) is not None:
        with writing(location):
            _clear(location)


def _clear(location: Location) -> None:
    if location.path is not None:
        check_links(location.path)
    root = Root(location)
    group = zarr.open_group(location.zarr, mode="r", zarr_format=3)
    recorded = {*root.attributes.get("recorded", ())}
    for name in sorted(journaled(location)):
        if name not in root.arrays:
            if name not in recorded:
                location.remove(name)
            continue
        location.replace(f"{name}/{ROOT}", json.dumps(root.arrays[name], indent=2).encode())
        if name in recorded:
            continue
        array: Any = group[name]
        for key in [key for key, _ in location.listing(name)]:
            rest = key.partition("/")[2]
            if rest != ROOT and chunk_index(array, rest) is None:
                location.remove(key)
        location.sync(name)
    location.sync("")  # the journal goes last, also where the power fails
    location.remove(JOURNAL)


def journaled(location: Location) -> frozenset[str]:
    """Names of the arrays that are being replaced, or were when a process was killed."""
    names: Any = None
    with suppress(ValueError, RecursionError):
        names = json.loads(location.read(JOURNAL) or b"null")
    return frozenset(name for name in names or () if isinstance(name, str) and NAME.fullmatch(name))


def _encode(variables: Mapping[Any, xr.Variable], before: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Metadata of the arrays by name, and their chunks by key; no array in `before` has any of these keys."""
    files: dict[str, Any] = {}
    group = zarr.create_group(MemoryStore(files), zarr_format=3)
    for key, variable in variables.items():
        values = variable.values
        array = create_array(
            group,
            str(key),
            shape=values.shape,
            chunks=_bounded(values.shape, values.dtype.itemsize),
            dtype=str if values.dtype.kind in "OUT" else values.dtype,
            dims=variable.dims,
            attributes=variable.attrs,
            keys=_OTHER if _is_default(before.get(str(key))) else DOTTED,
        )
        array[...] = values
    content = {key: buffer.to_bytes() for key, buffer in files.items() if key != ROOT}
    metadata = {key.partition("/")[0]: json.loads(content[key]) for key in content if key.endswith(f"/{ROOT}")}
    return metadata, {key: chunk for key, chunk in content.items() if not key.endswith(f"/{ROOT}")}


def _is_default(array: Any) -> bool:
    """Whether an array, given by its metadata or None, has chunk keys like those of recorded arrays."""
    return array is not None and array.get("chunk_key_encoding", {}).get("name") == "default"


def _bounded(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of at most `_CHUNK_BYTES`, whole along the last dimensions."""
    chunks = list(shape)
    for axis in range(len(shape)):
        if prod(chunks) * itemsize <= _CHUNK_BYTES:
            break
        chunks[axis] = max(1, _CHUNK_BYTES // (prod(chunks[axis + 1 :]) * itemsize))
    return tuple(chunks)
