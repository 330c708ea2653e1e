"""Check a store, which may come from a stranger, before zarr or xarray interpret it.

`parse` and `check` look at the metadata alone, `check_links` at the entries of a folder, and `check_coordinates` at the
coordinates of an opened store.
"""

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.attributes import NESTED
from gradscope.store.dims import CELL_DIMS, cell_dims
from gradscope.store.locations.files import MAX_METADATA_BYTES
from gradscope.store.schema import VERSION
from gradscope.store.untrusted import arrays as trusted_arrays
from gradscope.store.untrusted.checks import NAME, check_depth, check_key, is_number, mapping, parsed, refuse, short
from gradscope.text import check_name

_TEXTS = ("status", "run_id", "configuration_hash", "created", "device", "command", "coordinates")


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Parse the metadata of a store's root, and check them with `check`.

    Raises
    ------
    GradscopeError
        The metadata are too large, not JSON, or not those of a store that can be read safely.
    """
    if len(content) > MAX_METADATA_BYTES:
        raise GradscopeError(f"{where}: its metadata take {len(content)} bytes, at most {MAX_METADATA_BYTES} are read")
    document = parsed(content, where, "its zarr.json")
    check(document, where)
    return document


def check(document: Any, where: str) -> None:
    """Raise GradscopeError unless the document of a store's root describes arrays that can be read safely."""
    root = mapping(document, where, "its zarr.json")
    if root.get("zarr_format") != 3:
        refuse(where, f"zarr format {short(root.get('zarr_format'))}: only format 3 is read")
    if root.get("node_type") != "group":
        refuse(where, f"its root is of type {short(root.get('node_type'))}, wanted: a group")
    _check_attributes(mapping(root.get("attributes", {}), where, "attributes"), where)
    consolidated = root.get("consolidated_metadata")
    if not isinstance(consolidated, dict) or not isinstance(consolidated.get("metadata"), dict):
        refuse(where, "its metadata are not consolidated, so it is not complete")
    trusted_arrays.check(consolidated["metadata"], where, root.get("attributes", {}))


def check_links(folder: Path) -> None:
    """Raise GradscopeError if an entry of a store's folder links to a place outside, which might be overwritten."""
    try:
        links = [entry.path for entry in os.scandir(folder) if entry.is_symlink()]
    except OSError as error:
        raise GradscopeError(f"{folder} cannot be read: {error.strerror}") from error
    inside = os.path.realpath(folder) + os.sep
    for link in links:
        if not os.path.realpath(link).startswith(inside):
            raise GradscopeError(f"{link} is a link out of the store; it is not followed")


def check_coordinates(ds: xr.Dataset, where: str) -> None:
    """Raise GradscopeError if coordinates along dimensions are empty, repeated or not finite."""
    cell = cell_dims(ds)
    unique = "step" if "step" in ds and ds.attrs["schema_version"] > 1 else "timestep"  # a timestep may occur twice
    for name in (*cell, "sample", unique):
        values = np.atleast_1d(ds[name].values)  # a selection of one value is stored without the dimension
        if not len(values) and name in cell:
            refuse(where, f"{name} is empty")
        if len(np.unique(values)) < len(values):
            refuse(where, f"{name} has a value twice")
    if not np.isfinite(ds["timestep"].values).all():
        refuse(where, "timestep is not finite")
    for name in (*cell, "class", "judge_class"):
        if name in ds.coords and ds[name].dtype.kind in "OUT":
            for text in np.atleast_1d(ds[name].values).tolist():
                check_name(str(text), f"{where}, {name}")
    if not np.isfinite(ds["guidance_scale"].values).all():
        refuse(where, "guidance_scale is not finite")
    if "bound" in ds.coords and ds["bound"].values.tolist() != ["low", "high"]:
        refuse(where, f"bound must be low and high, got {short(ds['bound'].values.tolist())}")


def _check_attributes(attributes: Mapping[str, Any], where: str) -> None:
    version = attributes.get("schema_version")
    if version is None:
        raise GradscopeError(f"{where} is a zarr store, but not one of gradscope's (no schema_version)")
    if not is_number(version, int) or version < 1:
        refuse(where, f"schema_version must be a whole number of at least 1, got {short(version)}")
    if version > VERSION:
        raise GradscopeError(f"{where} has schema version {version}, this gradscope reads up to {VERSION}")
    check_depth(attributes, where)
    for key in _TEXTS:
        check_key(attributes, key, "a text", lambda value: isinstance(value, str), where)
    for key in ("classes", "recorded"):
        check_key(attributes, key, "a list of texts", _is_texts, where)
    check_key(attributes, "cell_dims", f"{', '.join(CELL_DIMS)}, and further names", _is_cell_dims, where)
    check_key(attributes, "sample_dims", "one to eight names", _is_names, where)
    values = {
        key: parsed(value, where, key) if isinstance(value, str) else value
        for key, value in attributes.items()
        if key in NESTED
    }
    check_depth(values, where)
    check_key(values, "resumed", "a list of mappings", _is_mappings, where)
    for key in ("versions", "weights_sha256", "deviation"):
        check_key(values, key, "a mapping", lambda value: isinstance(value, dict), where)
    configuration = _embedded(attributes, "configuration", where)
    for key in ("guidance", "recording", "sampling", "classifiers"):
        check_key(configuration, key, "a mapping", lambda value: isinstance(value, dict), f"{where}, configuration")
    for key, least in (("tensor_samples", 0), ("tensor_every", 1)):
        wanted, holds = f"a whole number of at least {least}", partial(_is_count, least=least)
        check_key(configuration.get("recording", {}), key, wanted, holds, f"{where}, configuration")
    for settings in (configuration, configuration.get("guidance", {})):
        check_key(settings, "interval", "two timesteps, or null", _is_interval, f"{where}, configuration")
    evaluation, where = _embedded(attributes, "evaluation", where), f"{where}, evaluation"
    for key in ("distances", "variables"):
        check_key(evaluation, key, "a list of texts", _is_texts, where)
    check_key(evaluation, "excluded", "a mapping of counts", _is_counts, where)


def _embedded(attributes: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    """An attribute that holds JSON text, parsed; empty if it is missing."""
    if key not in attributes:
        return {}
    check_key(attributes, key, "JSON text", lambda value: isinstance(value, str), where)
    found = mapping(parsed(attributes[key], where, key), where, key)
    check_depth(found, where)
    return found


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _is_names(value: Any) -> bool:
    """Whether the value is a list of one to eight different names."""
    names = _is_texts(value) and 1 <= len(value) <= 8 and len(set(value)) == len(value)
    return names and all(NAME.fullmatch(name) for name in value)


def _is_cell_dims(value: Any) -> bool:
    return _is_names(value) and tuple(value[: len(CELL_DIMS)]) == CELL_DIMS


def _is_mappings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, dict) for each in value)


def _is_count(value: Any, least: int) -> bool:
    return is_number(value, int) and value >= least


def _is_counts(value: Any) -> bool:
    return isinstance(value, dict) and all(is_number(count, int) for count in value.values())


def _is_interval(value: Any) -> bool:
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(is_number, value)))
