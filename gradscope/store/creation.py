"""Create a store with all its arrays, before the first step."""

import json
import shlex
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zarr
from zarr.storage import MemoryStore

from gradscope.errors import GradscopeError
from gradscope.store.arrays import create_array
from gradscope.store.attributes import as_texts
from gradscope.store.coordinates import coordinates
from gradscope.store.grid import AUXILIARY
from gradscope.store.locations.location import ROOT, StorePath, locate, reason
from gradscope.store.root import sealed
from gradscope.store.schema import MOST_FILES, VERSION, WRITTEN, Schema
from gradscope.store.untrusted.root import parse
from gradscope.text import size


def create(
    where: StorePath, schema: Schema, attributes: Mapping[str, Any], overwrite: bool = False, durable: bool = False
) -> None:
    """Create a store with all its arrays, empty, and consolidated metadata. It appears complete or not at all.

    Parameters
    ----------
    where
        A path, or a URL in an object store.
    schema
        Its arrays.
    attributes
        Its attributes.
    overwrite
        Replace a store that exists there.
    durable
        Flush the store to disk (fsync) before it appears.

    Raises
    ------
    GradscopeError
        The path exists (and is not a store to overwrite), or the disk lacks the space.
    """
    location = locate(where)
    refuse_path(location, overwrite)
    refuse_size(location, schema)
    try:
        with location.made(overwrite, durable) as new:
            if not overwrite:
                refuse_path(location, overwrite)  # another process may have created it in the meantime
            files = _files(schema)
            document = json.loads(files[ROOT])
            document["attributes"] |= _about(schema) | as_texts(attributes)
            files[ROOT] = sealed(document)
            parse(files[ROOT], str(location))  # check that readers will open it
            new.fill(files)
    except location.errors as error:
        raise GradscopeError(f"{location} cannot be created: {reason(error)}", key="recording.path") from error


def _about(schema: Schema) -> dict[str, Any]:
    """Attributes that every store has."""
    grid = schema.grid
    about: dict[str, Any] = {"schema_version": VERSION, "recorded": list(schema.names)}
    if grid.repetitions:
        about["repetitions"] = list(grid.repetitions)
    return about | {"cell_dims": list(grid.cell_dims), "sample_dims": list(grid.sample_names)}


def _files(schema: Schema) -> dict[str, bytes]:
    """Content of a new store's files by key."""
    files: dict[str, Any] = {}
    memory = MemoryStore(files)
    group = zarr.create_group(memory, zarr_format=3)
    group.attrs["coordinates"] = AUXILIARY
    for name, coordinate in coordinates(schema).items():
        values = coordinate.values
        created = create_array(
            group,
            name,
            shape=values.shape,
            chunks=values.shape,
            dtype=str if values.dtype == object else values.dtype,
            dims=coordinate.dims,
            attributes=coordinate.attrs,
        )
        created[...] = values
    for array in (*schema.arrays, WRITTEN):
        create_array(
            group,
            array.name,
            shape=schema.shape(array),
            chunks=schema.chunks(array),
            shards=schema.shards(array),
            dtype=array.dtype,
            dims=schema.dims(array),
            attributes=array.attributes,
            codec=schema.codec if array.kind == "tensor" else "none",
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(memory)
    return {key: buffer.to_bytes() for key, buffer in files.items()}


def refuse_size(where: StorePath, schema: Schema) -> None:
    """Raise GradscopeError if a store would have over a million files, or more bytes than its disk has free."""
    location = locate(where)
    if (files := schema.files()) > MOST_FILES:
        raise GradscopeError(
            f"the store would have {files:,} files, at most {MOST_FILES:,} are allowed",
            key="recording.path",
            python="record fewer samples, timesteps or tensors, or larger blocks (batch_size)",
            command="lower sampling.samples or recording.tensor_samples, or raise sampling.batch_size",
        )
    if location.path is None:
        return
    path = location.path.resolve()
    folder = next(parent for parent in path.parents if parent.is_dir())
    free = shutil.disk_usage(folder).free + (_size(path) if path.exists() else 0)
    if schema.bytes() > free:
        raise GradscopeError(
            f"the store needs {size(schema.bytes())} and {folder} has {size(free)} free",
            key="recording.path",
            python="lower tensor_samples, raise tensor_every, or choose another path",
            command="lower recording.tensor_samples, raise recording.tensor_every, or choose another path",
        )


def refuse_path(where: StorePath, overwrite: bool) -> None:
    """Raise GradscopeError if a new store cannot be created at this path."""
    location = locate(where)
    if not location.exists():
        return
    if not overwrite:
        raise GradscopeError(
            f"{location} exists",
            key="recording.path",
            python="choose another path, continue it (resume=True), or overwrite it (overwrite=True)",
            command=f"choose another path (--store), continue it (--resume {shlex.quote(str(location))}), or overwrite "
            "it (--overwrite)",
        )
    if location.read(ROOT) is None:
        raise GradscopeError(f"{location} is not a zarr store, so it is not overwritten", key="recording.path")
    if location.path is not None:
        with location.lock():
            pass  # raises if another process records into it


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
