"""Model of an array's metadata: its type, shape, chunks and codecs, which bound the memory that reading it takes."""

from collections.abc import Sequence
from math import prod
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from gradscope.store.untrusted.checks import PositiveSizes, Sizes, Strict, Text, Texts, wanted
from gradscope.store.untrusted.chunk_bytes import COMPRESSIONS, TEXT
from gradscope.text import short

_CHUNK_BYTES, _SHARD_BYTES = 2**30, 2**36
_LONG_BYTES = 2**26  # of chunks that are larger than their array
_CHUNKS = 10**8
_INDEX = {"name": "bytes", "configuration": {"endian": "little"}}
_ITEMSIZE = {
    **{"bool": 1, "string": TEXT},
    **{"int8": 1, "int16": 2, "int32": 4, "int64": 8, "uint8": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{"float16": 2, "float32": 4, "float64": 8},
}
_Few = Field(min_length=1, max_length=8, fail_fast=True)
_Absent = Annotated[None, wanted("absent: it would change values when they are decoded")]


def _sound(codecs: list[Any]) -> list[Any]:
    names = [codec.name for codec in codecs]
    if sum(name in COMPRESSIONS for name in names) > 1:
        raise ValueError(f"codecs {short(names)} compress twice; their decoded size is not known")
    if "sharding_indexed" in names and len(names) > 1:
        raise ValueError(f"codecs {short(names)}: sharding_indexed stands alone")
    return codecs


def _of_index(codecs: Any) -> Any:
    if codecs not in ([_INDEX], [_INDEX, {"name": "crc32c"}]):
        raise ValueError("others")
    return codecs


class _Codec(Strict):
    # xarray writes zstd wherever a variable has no encoding: after `drop_encoding`, which it asks for before other
    # chunks are written, and for variables that a user assigned. An encoding of ours would not reach these copies.
    name: Literal["blosc", "bytes", "crc32c", "transpose", "vlen-utf8", "zstd"]


class _Shard(Strict):
    """Settings of the codec that puts several chunks into a file."""

    chunk_shape: PositiveSizes
    codecs: Annotated[list[_Codec], _Few, AfterValidator(_sound)]
    index_codecs: Annotated[Any, AfterValidator(_of_index), wanted(f"{_INDEX}, then crc32c or nothing")]
    index_location: Literal["end"] = "end"


class _Sharded(Strict):
    name: Literal["sharding_indexed"]
    configuration: _Shard


class _ChunkShape(Strict):
    chunk_shape: Sizes


class _Grid(Strict):
    name: Literal["regular"]
    configuration: _ChunkShape


class _Separator(Strict):
    separator: Text = "/"


class _Keys(Strict):
    configuration: _Separator = _Separator()


class _About(Strict):
    long_name: Text = ""
    units: Text = ""
    equation: Text = ""
    coordinates: Text = ""
    scale_factor: _Absent = None
    add_offset: _Absent = None
    missing_value: _Absent = None
    unsigned: _Absent = Field(None, alias="_Unsigned")


class Array(Strict):
    """The metadata of an array. `shape` and the shapes of chunks fit together and are bounded."""

    zarr_format: Literal[3]
    node_type: Literal["array"]
    data_type: Annotated[str, Field(pattern=f"^({'|'.join(_ITEMSIZE)})$"), wanted(f"one of: {', '.join(_ITEMSIZE)}")]
    shape: Sizes
    dimension_names: Texts | None = None
    chunk_grid: _Grid
    chunk_key_encoding: _Keys
    codecs: Annotated[list[Annotated[_Codec | _Sharded, Field(discriminator="name")]], _Few, AfterValidator(_sound)]
    storage_transformers: Annotated[list[Any] | None, Field(max_length=0), wanted("absent: none is read")] = None
    attributes: _About = Field({}, validate_default=True)

    @property
    def dims(self) -> tuple[str, ...]:
        """Names of its dimensions."""
        return tuple(self.dimension_names or ())

    @property
    def is_dotted(self) -> bool:
        """Whether the keys of its chunks are those that gradscope writes; if not, xarray wrote it."""
        return self.chunk_key_encoding.configuration.separator == "."

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _ITEMSIZE[self.data_type]

    @property
    def stored(self) -> list[int]:
        """Shape of what lies in a file: a chunk, or a shard of several."""
        return self.chunk_grid.configuration.chunk_shape

    @property
    def shard(self) -> _Shard | None:
        """How several chunks lie in a file; None if each has its own."""
        first = self.codecs[0]
        return first.configuration if isinstance(first, _Sharded) else None

    @model_validator(mode="after")
    def _is_bounded(self) -> "Array":
        dims, shape, stored, shard = list(self.dims), self.shape, self.stored, self.shard
        if len(dims) != len(shape) or not all(dims):
            raise ValueError(f"dimension_names {short(dims)} do not name the {len(shape)} dimensions of its shape")
        if len(set(dims)) < len(dims):
            raise ValueError(f"it has a dimension twice: {short(dims)}")
        if shard:
            _check_chunk(shard.chunk_shape, stored, self.itemsize, _CHUNK_BYTES)
        _check_chunk(stored, shape, self.itemsize, _SHARD_BYTES if shard else _CHUNK_BYTES)
        if prod(-(-length // size) for length, size in zip(shape, stored, strict=True) if size) > _CHUNKS:
            raise ValueError(f"chunks of {short(stored)} cut shape {short(shape)} into more than {_CHUNKS} pieces")
        return self


def _check_chunk(chunk: Sequence[int], shape: Sequence[int], itemsize: int, limit: int) -> None:
    if len(chunk) != len(shape) or any(size == 0 < length for size, length in zip(chunk, shape, strict=True)):
        raise ValueError(f"chunks of {short(chunk)} do not fit shape {short(shape)}")
    if prod(chunk) * itemsize > limit:
        raise ValueError(f"a chunk of {short(chunk)} takes more than {limit} bytes")
    longer = any(size > max(length, 1) for size, length in zip(chunk, shape, strict=True))
    if longer and prod(chunk) * itemsize > _LONG_BYTES:  # a selection that xarray wrote keeps the chunk size
        raise ValueError(f"chunks of {short(chunk)} are longer than shape {short(shape)}")
