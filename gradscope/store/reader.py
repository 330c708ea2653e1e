"""Reading a store."""

from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from gradscope.errors import GradscopeError
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
    version: Any = zarr.open_group(path, mode="r").attrs.get("schema_version")
    if version is None:
        raise GradscopeError(f"{path} is a zarr store, but not one of gradscope's (no schema_version)")
    if version > VERSION:
        raise GradscopeError(f"{path} has schema version {version}, this gradscope reads up to {VERSION}")
    ds = xr.open_zarr(path, chunks={})
    for name in list(ds.data_vars):
        exponent = f"{name}_exponent"
        if exponent in ds:
            ds[name] = xr.apply_ufunc(
                np.ldexp, ds[name].astype("float32"), ds[exponent].astype("int32"), dask="parallelized",
                output_dtypes=["float32"], keep_attrs="override",
            )  # fmt: skip
    written = ds["written"].variable
    marks: dict[tuple, xr.Variable] = {}  # by least value and chunks: the same for all tensors, and for all scalars
    for name, variable in list(ds.variables.items()):
        if name in ds.data_vars and name != "written" and "timestep" in variable.dims:
            least = 3 if "channel" in variable.dims else 1
            chunks = {dim: variable.chunksizes[dim] for dim in written.dims}
            key = (least, *chunks.values())
            if key not in marks:
                marks[key] = (written >= least).chunk(chunks)
            missing = -1 if variable.dtype.kind == "i" else np.nan
            masked = variable.where(marks[key], variable.dtype.type(missing))
            ds[name] = masked.dims, masked.data, variable.attrs
    return ds
