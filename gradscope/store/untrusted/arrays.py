"""Check the metadata of a store's arrays: sizes, codecs, and the dimensions of arrays that are read by name."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from gradscope.store.dims import CELL_DIMS, OF_SAMPLES, OF_TIMESTEPS, REPEAT, cell_dims_of, sample_dims_of
from gradscope.store.untrusted.checks import NAME, check_depth, check_key, mapping, refuse, short, whole_numbers
from gradscope.store.untrusted.chunk_bytes import COMPRESSIONS, TEXT
from probes.catalogue import CATALOGUE
from probes.variable import TENSOR

_CHUNK_BYTES, _SHARD_BYTES = 2**30, 2**36
_LONG_BYTES = 2**26  # of chunks that are larger than their array
_TENSOR_BYTES, _OTHER_BYTES = 2**48, 2**36  # of an array over a sample's dimensions, and of any other
_COORDINATE_VALUES = 10**7  # coordinates are read when a store is opened
_CHUNKS = 10**8
ARRAYS = 1000
"""Largest number of arrays that is read. A run records dozens, and each of them takes time to open."""
_CODECS = frozenset({"bytes", "crc32c", "sharding_indexed", "transpose", "vlen-utf8", *COMPRESSIONS})
ITEMSIZE = {
    **{"bool": 1, "string": TEXT},
    **{"int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{"float16": 2, "float32": 4, "float64": 8},
}
"""Bytes of an element by data type; other data types are not read."""
_INDEX = {"name": "bytes", "configuration": {"endian": "little"}}
_INTEGER, _FLOAT = ("int", "uint"), ("float",)

_TENSORS = tuple(row.name for row in CATALOGUE.values() if row.dims == TENSOR)
_SCALARS = {row.name: _INTEGER if row.dtype.startswith("int") else _FLOAT for row in CATALOGUE.values() if not row.dims}


@dataclass(frozen=True)
class _Dims:
    """Names of a store's dimensions, from its attributes."""

    cell: tuple[str, ...]
    sample: tuple[str, ...]
    repeat: tuple[str, ...]

    @property
    def step(self) -> tuple[str, ...]:
        """Dimensions of a scalar, without repetitions."""
        return (*self.cell, "sample", "timestep")

    def known(self) -> dict[str, tuple[tuple[str, ...], Collection[str]]]:
        """Dimensions and kinds of elements of the arrays that gradscope reads by name."""
        final, step = (*self.cell, "sample"), (*self.step, *self.repeat)
        return {
            **{name: ((name,), ("string",)) for name in (*CELL_DIMS[:3], "class", "judge_class", "bound")},
            "guidance_scale": (("guidance_scale",), (*_FLOAT, *_INTEGER)),
            **{name: (("sample",), _INTEGER) for name in ("sample", *OF_SAMPLES)},
            "timestep": (("timestep",), (*_INTEGER, *_FLOAT)),
            **{name: (("timestep",), _INTEGER if name == "step" else _FLOAT) for name in OF_TIMESTEPS},
            "written": (step, ("uint",)),
            **{name: ((*step, *self.sample), _FLOAT) for name in _TENSORS},
            **{f"{name}_exponent": (step, ("int",)) for name in _TENSORS},
            **{name: (step, kinds) for name, kinds in _SCALARS.items()},
            "image": ((*final, *self.sample), _FLOAT),
            **{f"{name}_prediction": (final, ("int",)) for name in ("own", "judge")},
        }


_ENDINGS = {"_interval": ("bound",), "_replicates": ("replicate",)}
_NEEDED = ("sample", "timestep", "label", "written")
_NEVER = ("scale_factor", "add_offset", "missing_value", "_Unsigned")  # these would change values when decoded


def check(arrays: Mapping[str, Any], where: str, attributes: Mapping[str, Any]) -> None:
    """Raise GradscopeError unless these metadata, by array name, describe arrays that can be read safely.

    `attributes`, which are checked before, name the dimensions of cells and samples.
    """
    if len(arrays) > ARRAYS:
        refuse(where, f"it has {len(arrays)} arrays, at most {ARRAYS} are read")
    shapes: dict[str, tuple[tuple[str, ...], str]] = {}
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        if not NAME.fullmatch(name):
            refuse(where, f"an array cannot be named {short(name)}")
        shapes[name] = _check_array(array, f"{where}, array {name}", name, lengths, sample_dims_of(attributes))
    cell = cell_dims_of(attributes)
    if missing := [name for name in (*cell, *_NEEDED) if name not in shapes]:
        refuse(where, f"it lacks {', '.join(missing)}")
    dims = _Dims(cell, sample_dims_of(attributes), (REPEAT,) if REPEAT in shapes["written"][0] else ())
    for name, (own, kind) in shapes.items():
        _check_known(f"{where}, array {name}", name, own, kind, shapes, dims)


def codec_name(codec: Any) -> Any:
    """Name of a codec; one without settings may be given as its name alone."""
    return codec.get("name") if isinstance(codec, dict) else codec


def _check_array(
    array: Any, where: str, name: str, lengths: dict[str, int], sample: tuple[str, ...]
) -> tuple[tuple[str, ...], str]:
    """Check one array's metadata; return its dimensions and kind, and add the dimensions' lengths to `lengths`."""
    about = mapping(array, where, "its metadata")
    if about.get("zarr_format") != 3 or about.get("node_type") != "array":
        refuse(where, "only arrays of zarr format 3 are read")
    dtype = about.get("data_type")
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        refuse(where, f"data type {short(dtype)}; one of: {', '.join(ITEMSIZE)}")
    shape = whole_numbers(about.get("shape"), where, "shape", least=0)
    dims = about.get("dimension_names") or [None] * len(shape)
    if not isinstance(dims, list) or len(dims) != len(shape) or not all(isinstance(dim, str) and dim for dim in dims):
        refuse(where, f"dimension_names {short(dims)} do not name the {len(shape)} dimensions of its shape")
    if len(set(dims)) < len(dims):
        refuse(where, f"it has a dimension twice: {short(dims)}")
    for dim, length in zip(dims, shape, strict=True):
        if lengths.setdefault(dim, length) != length:
            refuse(where, f"{short(dim)} has length {length}, in another array {lengths[dim]}")
    _check_chunks(about, where, shape, ITEMSIZE[dtype])
    size, limit = prod(shape) * ITEMSIZE[dtype], _TENSOR_BYTES if set(sample) <= set(dims) else _OTHER_BYTES
    if size > limit or (dims == [name] and shape[0] > _COORDINATE_VALUES):
        refuse(where, f"shape {short(shape)} is too large to be read")
    if about.get("storage_transformers"):
        refuse(where, "storage transformers are not read")
    attributes = mapping(about.get("attributes", {}), where, "attributes")
    check_depth(attributes, where)
    for key in ("long_name", "units", "equation", "coordinates"):
        check_key(attributes, key, "a text", lambda value: isinstance(value, str), where)
    if scaled := [key for key in _NEVER if key in attributes]:
        refuse(where, f"attribute {scaled[0]} would change its values; gradscope never writes it")
    return tuple(dims), dtype.rstrip("0123456789")


def _check_chunks(about: Mapping[str, Any], where: str, shape: list[int], itemsize: int) -> None:
    grid = mapping(about.get("chunk_grid"), where, "chunk_grid")
    if grid.get("name") != "regular":
        refuse(where, f"chunk grid {short(grid.get('name'))}, wanted: regular")
    sizes = mapping(grid.get("configuration"), where, "chunk_grid").get("chunk_shape")
    chunk = whole_numbers(sizes, where, "chunk shape", least=0)
    sharded = _check_codecs(about.get("codecs"), where, chunk, itemsize)
    _check_chunk(chunk, where, shape, itemsize, _SHARD_BYTES if sharded else _CHUNK_BYTES)
    if prod(-(-length // size) for length, size in zip(shape, chunk, strict=True) if size) > _CHUNKS:
        refuse(where, f"chunks of {short(chunk)} cut shape {short(shape)} into more than {_CHUNKS} pieces")


def _check_chunk(chunk: list[int], where: str, shape: list[int], itemsize: int, limit: int) -> None:
    if len(chunk) != len(shape) or any(size == 0 < length for size, length in zip(chunk, shape, strict=True)):
        refuse(where, f"chunks of {short(chunk)} do not fit shape {short(shape)}")
    if prod(chunk) * itemsize > limit:
        refuse(where, f"a chunk of {short(chunk)} takes more than {limit} bytes")
    longer = any(size > max(length, 1) for size, length in zip(chunk, shape, strict=True))
    if longer and prod(chunk) * itemsize > _LONG_BYTES:  # a selection that xarray wrote keeps the chunk size
        refuse(where, f"chunks of {short(chunk)} are longer than shape {short(shape)}")


def _check_codecs(codecs: Any, where: str, chunk: list[int], itemsize: int) -> bool:
    """Check the codecs; return whether they put several chunks into a shard."""
    names = _codec_names(codecs, where, _CODECS)
    if "sharding_indexed" not in names:
        return False
    if len(names) > 1:
        refuse(where, f"codecs {short(names)}: sharding_indexed stands alone")
    settings = mapping(mapping(codecs[0], where, "codec").get("configuration"), where, "sharding")
    inner = whole_numbers(settings.get("chunk_shape"), where, "chunk shape", least=1)
    _check_chunk(inner, where, chunk, itemsize, _CHUNK_BYTES)
    _codec_names(settings.get("codecs"), where, _CODECS - {"sharding_indexed"})
    if (place := settings.get("index_location", "end")) != "end":
        refuse(where, f"index_location {short(place)}, wanted: end")
    index: Any = settings.get("index_codecs")
    _codec_names(index, where, ("bytes", "crc32c"))
    if index[0] != _INDEX:
        refuse(where, f"index_codecs begin with {short(index[0])}, wanted: {_INDEX}")
    return True


def _codec_names(codecs: Any, where: str, possible: Collection[str]) -> list[str]:
    if not isinstance(codecs, list) or not codecs:
        refuse(where, f"codecs are a list, got {short(codecs)}")
    names = [codec_name(codec) for codec in codecs]
    for name in names:
        if not isinstance(name, str) or name not in possible:
            refuse(where, f"codec {short(name)} is not read; one of: {', '.join(sorted(possible))}")
    if sum(name in COMPRESSIONS for name in names) > 1:
        refuse(where, f"codecs {short(names)} compress twice; their decoded size is not known")
    return names


def _check_known(
    where: str,
    name: str,
    dims: tuple[str, ...],
    kind: str,
    shapes: Mapping[str, tuple[tuple[str, ...], str]],
    of: _Dims,
) -> None:
    """Check that an array that is read by name has the expected dimensions and kind."""
    known = of.known()
    wanted, kinds = known.get(name, (dims, (kind,)))
    gone = {dim for dim in (*of.step, *of.repeat) if shapes.get(dim, ((dim,), ""))[0] == ()}  # one value was selected
    step = tuple(dim for dim in (*of.step, *of.repeat) if dim not in gone)
    if name in dims:  # a coordinate of a dimension
        wanted = (name,)
    elif name not in known and "timestep" in dims and dims != ("timestep",):
        wanted = (*step, *dims[len(step) :])
    elif name.endswith("_floor"):
        wanted = ()
    for ending, own in _ENDINGS.items():
        if name.endswith(ending) and (of_name := name.removesuffix(ending)) in shapes:
            wanted, kinds = (*shapes[of_name][0], *own), _FLOAT
    whole = name.removesuffix("_exponent")
    if name.endswith("_exponent") and whole in shapes and "timestep" in shapes[whole][0]:
        wanted, kinds = step, ("int",)
    wanted = tuple(dim for dim in wanted if dim not in gone)
    if dims != wanted:
        refuse(where, f"its dimensions are {short(list(dims))}, wanted: {list(wanted)}")
    if kind not in kinds:
        refuse(where, f"it holds {kind}, wanted: {' or '.join(kinds)}")
