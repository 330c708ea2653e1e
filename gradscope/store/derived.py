"""Datasets that are computed at once, saved as a zarr store: audits and leaderboards."""

import warnings
from math import prod
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.storage import MemoryStore

from gradscope.errors import GradscopeError
from gradscope.store.attributes import as_texts
from gradscope.store.locations.folder import Folder
from gradscope.store.locations.location import ROOT, StorePath, locate
from gradscope.store.untrusted.bounded import Bounded
from gradscope.store.untrusted.content import check_links
from gradscope.store.untrusted.derived import parse_derived
from gradscope.text import short, size

ORACLE = "oracle"
"""Attribute ``kind`` of a leaderboard's store."""
_MOST = 2**30
"""Bytes of a dataset that is read."""


def kind_of(where: StorePath) -> str:
    """The attribute ``kind`` of a store, empty for that of a run; empty, too, where there is no readable store."""
    content = locate(where).read(ROOT)
    try:
        return "" if content is None else parse_derived(content, str(where)).attributes.kind
    except GradscopeError:
        return ""


def read(where: StorePath, kind: str) -> xr.Dataset:
    """Read the dataset of a store of a kind into memory.

    Raises
    ------
    GradscopeError
        There is no store, it is damaged, too large, or of another kind.
    """
    location = locate(where)
    content = location.read(ROOT)
    if content is None:
        raise GradscopeError(f"{location} is not a zarr store (no {ROOT} in it)")
    root = parse_derived(content, str(location))
    if root.attributes.kind != kind:
        raise GradscopeError(f"{location}: its kind is {short(root.attributes.kind)}, wanted {kind!r}")
    bytes_ = sum(prod(array.shape) * array.itemsize for array in root.arrays.values())
    if bytes_ > _MOST:
        raise GradscopeError(f"{location} claims {size(bytes_)}; at most {size(_MOST)} are read")
    if location.path is not None:
        check_links(location.path)
    try:
        opened = xr.open_zarr(Bounded(location, root), chunks=None, zarr_format=3, mask_and_scale=False,
                              decode_times=False)  # fmt: skip
        return opened.load()
    except GradscopeError:
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        raise GradscopeError(f"{location} is damaged: {error}") from error


def refuse_out(path: Path, overwrite: bool, what: str) -> None:
    """Raise GradscopeError unless a dataset, `what` in words, may be saved at `path`."""
    if path.suffix != ".zarr":
        raise GradscopeError(f"{what} is saved as a zarr store, NAME.zarr; got {str(path)!r}", key="--out")
    if path.exists() and not overwrite:
        raise GradscopeError(
            f"{path} exists; choose another path", key="--out", command="or overwrite it (--overwrite)"
        )
    if path.exists() and not (path / "zarr.json").is_file():
        raise GradscopeError(f"{path} is not a zarr store, it is not overwritten", key="--out")


def save(ds: xr.Dataset, path: Path) -> None:
    """Write a dataset as a zarr v3 store for plain ``xarray.open_zarr``, in place of an existing one.

    Every chunk has a checksum. The store appears complete or not at all; until then an existing one stays.
    """
    codecs = {"compressors": (ZstdCodec(level=0), Crc32cCodec())}
    encoding = dict.fromkeys(map(str, ds.variables), codecs)
    files: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Consolidated metadata")
        ds.assign_attrs(as_texts(ds.attrs)).to_zarr(MemoryStore(files), zarr_format=3, encoding=encoding)
    try:
        with Folder(path).made(overwrite=True) as new:
            new.fill({key: buffer.to_bytes() for key, buffer in files.items()})
    except OSError as error:
        raise GradscopeError(f"{path} could not be written: {error.strerror}", key="--out") from error
