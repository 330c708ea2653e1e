"""Reading a store."""

from pathlib import Path
from typing import Any

import xarray as xr
import zarr

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks
from gradscope.store.lazy import Recorded, Selection, StoredVariable
from gradscope.store.schema import VERSION


def open_store(path: str | Path) -> xr.Dataset:
    """Open a store lazily; what is not yet written is masked (NaN, and -1 for integers).

    Tensors stored as float16 come back as float32, scaled by their exponents.

    Raises
    ------
    GradscopeError
        There is no store at `path`, or it was written by a later version.
    """
    path = Path(path)
    if not (path / "zarr.json").is_file():
        raise GradscopeError(f"{path} is not a zarr store (no zarr.json in it)")
    group = zarr.open_group(path, mode="r")
    version: Any = group.attrs.get("schema_version")
    if version is None:
        raise GradscopeError(f"{path} is a zarr store, but not one of gradscope's (no schema_version)")
    if version > VERSION:
        raise GradscopeError(f"{path} has schema version {version}, this gradscope reads up to {VERSION}")
    ds = xr.open_zarr(path, chunks={})
    chunks = {name: Chunks(path, array) for name, array in group.arrays()}
    timed = {}
    for name, variable in ds.data_vars.items():
        if name != "written" and "timestep" in variable.dims:
            least = 3 if "channel" in variable.dims else 1
            recorded = Recorded(chunks[name], chunks["written"], least, chunks.get(f"{name}_exponent"))
            timed[name] = StoredVariable.of(variable.dims, Selection.whole(recorded), variable.attrs)
    return ds.assign(timed)
