"""Making a store: every array, before the first step, and what is added when a run is over."""

import shutil
import warnings
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import BloscCodec

from gradscope.errors import GradscopeError
from gradscope.store.schema import CELL_DIMS, VERSION, WRITTEN, Schema, fill_value

_CODECS = {"none": None, "lz4": BloscCodec(cname="lz4", shuffle="bitshuffle", clevel=1)}
_KEYS = {"name": "default", "separator": "."}
_ADDED_CHUNK_BYTES = 4 * 2**20


def create(path: Path, schema: Schema, attributes: Mapping[str, Any], overwrite: bool = False) -> None:
    """Make the store with all its arrays, empty, and its metadata consolidated.

    Raises
    ------
    GradscopeError
        The path exists (and is not a store to be overwritten), or the file system lacks the room.
    """
    refuse_path(path, overwrite)
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    free = shutil.disk_usage(folder).free + (_size(path) if path.exists() else 0)
    if schema.bytes() > free:
        raise GradscopeError(
            f"recording.path: the store needs {schema.bytes() / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; "
            "lower recording.tensor_samples, raise recording.tensor_every, or choose another path"
        )
    if path.exists():
        shutil.rmtree(path)
    group = zarr.create_group(path, zarr_format=3, attributes={"schema_version": VERSION, **attributes})
    _coordinates(group, schema)
    for array in (*schema.arrays, WRITTEN):
        _create(
            group,
            array.name,
            shape=schema.shape(array),
            chunks=schema.chunks(array),
            dtype=array.dtype,
            dims=schema.dims(array),
            attributes=array.attributes,
            codec=schema.codec if array.kind == "tensor" else "none",
        )
    _consolidate(path)


def refuse_path(path: Path, overwrite: bool) -> None:
    """Raise GradscopeError where a new store may not be made at `path`."""
    if not path.exists():
        return
    if not overwrite:
        raise GradscopeError(
            f"recording.path: {path} exists; choose another path (--store), or overwrite it (--overwrite)"
        )
    if not (path / "zarr.json").is_file():
        raise GradscopeError(f"recording.path: {path} is not a zarr store, it is not overwritten")


def add_variables(path: Path, variables: xr.Dataset, instead_of: Iterable[str] = ()) -> None:
    """Add arrays, with the coordinates they bring, to a store, set `variables.attrs` on it, and consolidate again.

    Arrays of the same name and those named in `instead_of` are removed before.
    """
    group = zarr.open_group(path, mode="r+", use_consolidated=False)
    for name in {*instead_of, *map(str, variables.variables)} & set(group.array_keys()):
        del group[name]
    for key, variable in variables.variables.items():
        values = variable.values
        array = _create(
            group,
            str(key),
            shape=values.shape,
            chunks=_bounded(values.shape, values.dtype.itemsize),
            dtype=str if values.dtype.kind in "OU" else values.dtype,
            dims=variable.dims,
            attributes=variable.attrs,
        )
        array[...] = values
    group.attrs.update(variables.attrs)
    _consolidate(path)


def set_attributes(path: Path, attributes: Mapping[str, Any]) -> None:
    """Change attributes of the store and consolidate again."""
    zarr.open_group(path, mode="r+", use_consolidated=False).attrs.update(attributes)
    _consolidate(path)


def _bounded(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Chunks of at most `_ADDED_CHUNK_BYTES`, whole along the last dimensions."""
    chunks = list(shape)
    for axis in range(len(shape)):
        if prod(chunks) * itemsize <= _ADDED_CHUNK_BYTES:
            break
        chunks[axis] = max(1, _ADDED_CHUNK_BYTES // (prod(chunks[axis + 1 :]) * itemsize))
    return tuple(chunks)


def _create(group, name, *, shape, chunks, dtype, dims, attributes, codec="none"):
    return group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        fill_value=fill_value(dtype),
        compressors=_CODECS[codec],
        filters=None,
        dimension_names=dims,
        attributes=dict(attributes),
        chunk_key_encoding=_KEYS,
        config={"write_empty_chunks": True},
    )


def _coordinates(group: zarr.Group, schema: Schema) -> None:
    grid = schema.grid
    texts = {
        "classifier": "guide",
        "classifier_input": "what the guide sees: x_t, x0 (through the denoiser) or x0_detached",
        "stabilizer": "stabiliser of the gradients",
    }
    for dim, about in texts.items():
        _coordinate(group, dim, (dim,), np.array(getattr(grid, dim), dtype=object), about)
    scale = np.array(grid.guidance_scale, dtype=np.float64)
    _coordinate(group, CELL_DIMS[3], (CELL_DIMS[3],), scale, "guidance scale")
    numbers = {
        "timestep": (grid.timestep.astype(np.int64), "diffusion time, in sampling order"),
        "step": (np.arange(grid.timesteps), "number of the sampling step"),
        "alphas_cumprod": (grid.alphas_cumprod, "cumulative product of alphas"),
        "sigma": (grid.sigma, "standard deviation of the DDPM posterior"),
    }
    for name, (values, about) in numbers.items():
        _coordinate(group, name, ("timestep",), values, about)
    _coordinate(group, "sample", ("sample",), np.arange(grid.samples), "index of the sample")
    _coordinate(group, "label", ("sample",), grid.label.astype(np.int64), "target class")
    _coordinate(group, "seed", ("sample",), grid.seed.astype(np.int64), "seed of the sample's generator")
    for dim, own in schema.coords.items():
        values = np.array(own.values, dtype=object if isinstance(own.values[0], str) else np.float64)
        _coordinate(group, dim, (dim,), values, own.long_name, own.units)
    group.attrs["coordinates"] = "step alphas_cumprod sigma label seed"


def _coordinate(
    group: zarr.Group, name: str, dims: tuple[str, ...], values: np.ndarray, about: str, units: str = "1"
) -> None:
    dtype = str if values.dtype == object else values.dtype
    attributes = {"long_name": about, "units": units}
    _create(group, name, shape=values.shape, chunks=values.shape, dtype=dtype, dims=dims, attributes=attributes)[
        ...
    ] = values


def _consolidate(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        zarr.consolidate_metadata(path)


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
