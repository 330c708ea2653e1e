"""What must hold of a store before zarr or xarray interpret it: it may come from a stranger.

`parse` and `check` look at the metadata alone, wherever their bytes come from, `check_links` at a folder's entries, and
`check_coordinates` at the values along the dimensions of what has been opened.
"""

import json
import os
import re
from collections.abc import Collection, Mapping
from math import isfinite, prod
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.schema import CELL_DIMS, IMAGE_DIMS, VERSION

MAX_METADATA_BYTES = 64 * 2**20
_CHUNK_BYTES, _SHARD_BYTES = 2**30, 2**36
_TENSOR_BYTES, _OTHER_BYTES = 2**48, 2**36  # an array over `channel`, and any other
_COORDINATE_VALUES = 10**7  # they are read when a store is opened
_CHUNKS = 10**8
_DEPTH = 20

_CODECS = frozenset({"blosc", "bytes", "crc32c", "gzip", "sharding_indexed", "transpose", "vlen-utf8", "zstd"})
_ITEMSIZE = {
    **{"bool": 1, "string": 64},  # of a text a guess
    **{"int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{"float16": 2, "float32": 4, "float64": 8},
}
_INTEGER, _FLOAT = ("int", "uint"), ("float",)
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,200}")

_SAMPLE = (*CELL_DIMS, "sample")
_STEP = (*_SAMPLE, "timestep")
_TENSOR = (*_STEP, *IMAGE_DIMS)
_TENSORS = ("gradient", "update", "direction", "x_t", "pred_original_sample")
_SCALARS = (
    "gradient_norm update_norm gradient_cosine update_cosine score_cosine effective_strength log_prob entropy "
    "clipped_fraction zero_fraction finite_fraction gradient_lipschitz unit_gradient_lipschitz high_frequency_share "
    "reference_cosine gradient_snr sensitivity_max infidelity"
).split()
_KNOWN: Mapping[str, tuple[tuple[str, ...], Collection[str]]] = {
    **{name: ((name,), ("string",)) for name in (*CELL_DIMS[:3], "class", "judge_class", "bound")},
    "guidance_scale": (("guidance_scale",), (*_FLOAT, *_INTEGER)),
    **{name: (("sample",), _INTEGER) for name in ("sample", "label", "seed")},
    **{name: (("timestep",), _INTEGER) for name in ("timestep", "step")},
    **{name: (("timestep",), _FLOAT) for name in ("alphas_cumprod", "sigma")},
    "written": (_STEP, ("uint",)),
    **{name: (_TENSOR, _FLOAT) for name in _TENSORS},
    **{f"{name}_exponent": (_STEP, ("int",)) for name in _TENSORS},
    **{name: (_STEP, _FLOAT) for name in _SCALARS},
    "predicted_class": (_STEP, ("int",)),
    "image": ((*_SAMPLE, *IMAGE_DIMS), _FLOAT),
    **{f"{name}_prediction": (_SAMPLE, ("int",)) for name in ("own", "judge")},
}
"""Dimensions and kinds of what this package reads by name."""
_ENDINGS = {"_interval": ("bound",), "_replicates": ("replicate",)}
_NEEDED = (*CELL_DIMS, "sample", "timestep", "label", "written")
_NEVER = ("scale_factor", "add_offset", "missing_value", "_Unsigned")  # values are stored as they are
_TEXTS = ("status", "run_id", "configuration_hash", "created", "device", "command", "coordinates")


def parse(content: bytes, where: str) -> dict[str, Any]:
    """The metadata of a store's root as they are in its file, checked by `check`.

    Raises
    ------
    GradscopeError
        They are too large, no JSON, or not those of a store that can be read safely.
    """
    if len(content) > MAX_METADATA_BYTES:
        raise GradscopeError(f"{where}: its metadata take {len(content)} bytes, at most {MAX_METADATA_BYTES} are read")
    document = _json(content, where, "its zarr.json")
    check(document, where)
    return document


def check(document: Any, where: str) -> None:
    """Raise GradscopeError unless this document, of a store's root, describes arrays that can be read safely."""
    root = _mapping(document, where, "its zarr.json")
    if root.get("zarr_format") != 3:
        _refuse(where, f"zarr format {_short(root.get('zarr_format'))}: only format 3 is read")
    if root.get("node_type") != "group":
        _refuse(where, f"its root is of type {_short(root.get('node_type'))}, wanted: a group")
    _check_attributes(_mapping(root.get("attributes", {}), where, "attributes"), where)
    consolidated = root.get("consolidated_metadata")
    if not isinstance(consolidated, dict) or not isinstance(consolidated.get("metadata"), dict):
        _refuse(where, "its metadata are not consolidated, so it was not made whole")
    shapes: dict[str, tuple[tuple[str, ...], str]] = {}
    lengths: dict[str, int] = {}
    for name, array in consolidated["metadata"].items():
        if not _NAME.fullmatch(name) or name in (".", ".."):
            _refuse(where, f"an array cannot be named {_short(name)}")
        shapes[name] = _check_array(array, f"{where}, array {name}", name, lengths)
    if missing := [name for name in _NEEDED if name not in shapes]:
        _refuse(where, f"it lacks {', '.join(missing)}")
    for name, (dims, kind) in shapes.items():
        _check_known(f"{where}, array {name}", name, dims, kind, shapes)


def check_links(folder: Path) -> None:
    """Raise GradscopeError where an entry of a store's folder is a link out of it: it would be read, or written to."""
    try:
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError as error:
        raise GradscopeError(f"{folder} cannot be read: {error.strerror}") from error
    inside = os.path.realpath(folder) + os.sep
    for link in links:
        if not os.path.realpath(link).startswith(inside):
            raise GradscopeError(f"{link} is a link out of the store; it is not followed")


def check_coordinates(ds: xr.Dataset, where: str) -> None:
    """Raise GradscopeError where the values along the dimensions are not those of a run."""
    for name in (*CELL_DIMS, "sample", "timestep"):
        values = ds[name].values
        if not len(values) and name in CELL_DIMS:
            _refuse(where, f"{name} is empty")
        if len(np.unique(values)) < len(values):
            _refuse(where, f"{name} has a value twice")
    if not np.isfinite(ds["guidance_scale"].values).all():
        _refuse(where, "guidance_scale is not finite")
    if "bound" in ds.coords and ds["bound"].values.tolist() != ["low", "high"]:
        _refuse(where, f"bound is low and high, got {_short(ds['bound'].values.tolist())}")


def _check_attributes(attributes: Mapping[str, Any], where: str) -> None:
    version = attributes.get("schema_version")
    if version is None:
        raise GradscopeError(f"{where} is a zarr store, but not one of gradscope's (no schema_version)")
    if not _is_number(version, int) or version < 1:
        _refuse(where, f"schema_version is a whole number from 1, got {_short(version)}")
    if version > VERSION:
        raise GradscopeError(f"{where} has schema version {version}, this gradscope reads up to {VERSION}")
    _check_depth(attributes, where)
    for key in _TEXTS:
        _check(attributes, key, "a text", lambda value: isinstance(value, str), where)
    for key in ("classes", "recorded"):
        _check(attributes, key, "a list of texts", _is_texts, where)
    _check(attributes, "resumed", "a list of mappings", _is_mappings, where)
    for key in ("versions", "weights_sha256", "deviation"):
        _check(attributes, key, "a mapping", lambda value: isinstance(value, dict), where)
    configuration = _embedded(attributes, "configuration", where)
    for key in ("guidance", "recording", "sampling", "classifiers"):
        _check(configuration, key, "a mapping", lambda value: isinstance(value, dict), f"{where}, configuration")
    for settings in (configuration, configuration.get("guidance", {})):
        _check(settings, "interval", "two timesteps, or none", _is_interval, f"{where}, configuration")
    evaluation, where = _embedded(attributes, "evaluation", where), f"{where}, evaluation"
    for key in ("distances", "variables"):
        _check(evaluation, key, "a list of texts", _is_texts, where)
    _check(evaluation, "excluded", "a mapping of counts", _is_counts, where)


def _check_array(array: Any, where: str, name: str, lengths: dict[str, int]) -> tuple[tuple[str, ...], str]:
    """Dimensions and kind of an array whose metadata are in order; the dimensions' lengths go into `lengths`."""
    about = _mapping(array, where, "its metadata")
    if about.get("zarr_format") != 3 or about.get("node_type") != "array":
        _refuse(where, "only arrays of zarr format 3 are read")
    dtype = about.get("data_type")
    if not isinstance(dtype, str) or dtype not in _ITEMSIZE:
        _refuse(where, f"data type {_short(dtype)}; one of: {', '.join(_ITEMSIZE)}")
    shape = _lengths(about.get("shape"), where, "shape", least=0)
    dims = about.get("dimension_names") or [None] * len(shape)
    if not isinstance(dims, list) or len(dims) != len(shape) or not all(isinstance(dim, str) and dim for dim in dims):
        _refuse(where, f"dimension_names {_short(dims)} do not name the {len(shape)} dimensions of its shape")
    if len(set(dims)) < len(dims):
        _refuse(where, f"it has a dimension twice: {_short(dims)}")
    for dim, length in zip(dims, shape, strict=True):
        if lengths.setdefault(dim, length) != length:
            _refuse(where, f"{_short(dim)} has length {length}, in another array {lengths[dim]}")
    _check_chunks(about, where, shape, _ITEMSIZE[dtype])
    size, limit = prod(shape) * _ITEMSIZE[dtype], _TENSOR_BYTES if "channel" in dims else _OTHER_BYTES
    if size > limit or (dims == [name] and shape[0] > _COORDINATE_VALUES):
        _refuse(where, f"shape {_short(shape)} is larger than any that is read")
    if about.get("storage_transformers"):
        _refuse(where, "storage transformers are not read")
    attributes = _mapping(about.get("attributes", {}), where, "attributes")
    _check_depth(attributes, where)
    for key in ("long_name", "units", "equation", "coordinates"):
        _check(attributes, key, "a text", lambda value: isinstance(value, str), where)
    if scaled := [key for key in _NEVER if key in attributes]:
        _refuse(where, f"attribute {scaled[0]} changes its values; no store of gradscope's has it")
    return tuple(dims), dtype.rstrip("0123456789")


def _check_chunks(about: Mapping[str, Any], where: str, shape: list[int], itemsize: int) -> None:
    grid = _mapping(about.get("chunk_grid"), where, "chunk_grid")
    if grid.get("name") != "regular":
        _refuse(where, f"chunk grid {_short(grid.get('name'))}, wanted: regular")
    sizes = _mapping(grid.get("configuration"), where, "chunk_grid").get("chunk_shape")
    sharded = _check_codecs(about.get("codecs"), where, len(shape), itemsize)
    chunk = _lengths(sizes, where, "chunk shape", least=0)
    _check_chunk(chunk, where, shape, itemsize, _SHARD_BYTES if sharded else _CHUNK_BYTES)
    if prod(-(-length // size) for length, size in zip(shape, chunk, strict=True) if size) > _CHUNKS:
        _refuse(where, f"chunks of {_short(chunk)} cut shape {_short(shape)} into more than {_CHUNKS} pieces")


def _check_chunk(chunk: list[int], where: str, shape: list[int], itemsize: int, limit: int) -> None:
    if len(chunk) != len(shape) or any(size == 0 < length for size, length in zip(chunk, shape, strict=True)):
        _refuse(where, f"chunks of {_short(chunk)} do not fit shape {_short(shape)}")
    if prod(chunk) * itemsize > limit:
        _refuse(where, f"a chunk of {_short(chunk)} takes more than {limit} bytes")


def _check_codecs(codecs: Any, where: str, rank: int, itemsize: int, inner: bool = False) -> bool:
    """Whether the chunks lie together in shards."""
    if not isinstance(codecs, list) or not codecs:
        _refuse(where, f"codecs are a list, got {_short(codecs)}")
    sharded = False
    for codec in codecs:
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(name, str) or name not in _CODECS or (inner and name == "sharding_indexed"):
            _refuse(where, f"codec {_short(name)} is not read; one of: {', '.join(sorted(_CODECS))}")
        if name == "sharding_indexed":
            settings = _mapping(codec.get("configuration") if isinstance(codec, dict) else None, where, "sharding")
            chunk = _lengths(settings.get("chunk_shape"), where, "chunk shape", least=1)
            _check_chunk(chunk, where, [1] * rank, itemsize, _CHUNK_BYTES)
            for key in ("codecs", "index_codecs"):
                _check_codecs(settings.get(key), where, rank, itemsize, inner=True)
            sharded = True
    return sharded


def _check_known(
    where: str, name: str, dims: tuple[str, ...], kind: str, shapes: Mapping[str, tuple[tuple[str, ...], str]]
) -> None:
    """What is read by its name has the dimensions it is read with."""
    wanted, kinds = _KNOWN.get(name, (dims, (kind,)))
    if name in dims:  # a coordinate of a dimension
        wanted = (name,)
    elif name not in _KNOWN and "timestep" in dims and dims != ("timestep",):
        wanted = (*_STEP, *dims[len(_STEP) :])
    elif name.endswith("_floor"):
        wanted = ()
    for ending, own in _ENDINGS.items():
        if name.endswith(ending) and (of := name.removesuffix(ending)) in shapes:
            wanted, kinds = (*shapes[of][0], *own), _FLOAT
    if name.endswith("_exponent") and (of := name.removesuffix("_exponent")) in shapes and "timestep" in shapes[of][0]:
        wanted, kinds = _STEP, ("int",)
    if dims != wanted:
        _refuse(where, f"its dimensions are {_short(list(dims))}, wanted: {list(wanted)}")
    if kind not in kinds:
        _refuse(where, f"it holds {kind}, wanted: {' or '.join(kinds)}")


def _check(values: Mapping[str, Any], key: str, wanted: str, holds: Any, where: str) -> None:
    """Of a key that is there."""
    if key in values and not holds(values[key]):
        _refuse(where, f"{key} is {wanted}, got {_short(values[key])}")


def _check_depth(value: Any, where: str) -> None:
    level = [value]
    for _ in range(_DEPTH):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    _refuse(where, f"its attributes are nested more than {_DEPTH} deep")


def _embedded(attributes: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """An attribute that is JSON itself; empty where there is none."""
    if key not in attributes:
        return {}
    _check(attributes, key, "JSON as a text", lambda value: isinstance(value, str), where)
    found = _mapping(_json(attributes[key], where, key), where, key)
    _check_depth(found, where)
    return found


def _json(content: str | bytes, where: str, what: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one, as is a number of too many digits
        raise GradscopeError(f"{where}: {what} cannot be read as JSON: {error}") from None


def _mapping(value: Any, where: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        _refuse(where, f"{what} must be a mapping, got {_short(value)}")
    return value


def _lengths(value: Any, where: str, what: str, least: int) -> list[int]:
    if not isinstance(value, list) or not all(_is_number(n, int) and least <= n < 2**63 for n in value):
        _refuse(where, f"{what} must be a list of whole numbers from {least}, got {_short(value)}")
    return value


def _is_number(value: Any, kind: Any = int | float) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool) and isfinite(value)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_number(count, int) for count in value.values())


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(_is_number, value)))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse(where: str, why: str) -> NoReturn:
    raise GradscopeError(f"{where}: {why}")
