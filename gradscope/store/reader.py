"""Open a store for reading."""

from typing import Any

import xarray as xr
import zarr

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks
from gradscope.store.dims import cell_dims, is_tensor
from gradscope.store.lazy import Final, Recorded, chunked, masked
from gradscope.store.locations.location import Location, StorePath, locate
from gradscope.store.opening import attributes_of, marker_chunks, open_arrays, opened_again
from gradscope.store.untrusted.content import check_coordinates


@opened_again
def open_store(where: StorePath, dask: bool = True) -> xr.Dataset:
    """Open a store lazily. Values that are not written yet are masked: NaN, or -1 for integers.

    Tensors stored as float16 are read as float32, scaled by their exponents. The attribute ``status`` is ``recording``
    only while a process records; after a run was killed it is ``interrupted``.

    Parameters
    ----------
    where
        A path, or a URL in an object store.
    dask
        Whether variables are dask arrays, in the chunks of the store or several of them. Without, each is read when it
        is used, and opening a store takes half a second less.

    Returns
    -------
    xarray.Dataset
        Scalars over cells (classifier, classifier_input, stabilizer, guidance_scale), sample and timestep; tensors over
        the dimensions of a sample, too. If a timestep occurs twice, select by ``step``: ``ds.sel(step=3)``.

    Raises
    ------
    GradscopeError
        There is no store, it is damaged, or a later version wrote it.

    Examples
    --------
    >>> ds = gradscope.open("runs/both.zarr")
    >>> ds.gradient_cosine.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale', 'sample', 'timestep')
    """
    location = locate(where)
    group = open_arrays(location)
    try:
        # Without decoding: gradscope stores values as they are, and a stranger's attributes must not change them.
        plain: dict[str, Any] = {"zarr_format": 3, "mask_and_scale": False, "decode_times": False}
        ds = xr.open_zarr(group.store, chunks=None, **plain)  # xarray's chunks would be replaced by ours
        # They are small, and groupby("label") needs them.
        further = {name: coord.variable for name, coord in ds.coords.items() if name not in ds.indexes}
        ds = ds.assign_coords({name: variable.load() for name, variable in further.items()})
        variables = _variables(ds, location, group, dask)
        check_coordinates({str(name): coord.values for name, coord in ds.coords.items()}, ds.attrs, str(location))
    except GradscopeError:
        raise
    except Exception as error:  # zarr and its codecs raise errors of many types
        raise GradscopeError(f"{location} is damaged: {error}") from error
    ds.attrs = attributes_of(location, ds.attrs)
    ds = ds.assign(variables)
    if "timestep" in ds.dims and not ds.indexes["timestep"].is_unique:  # some solvers repeat a timestep
        ds = ds.drop_indexes("timestep").set_xindex("step")
    ds.encoding["source"] = str(location)  # selections keep it
    return ds


def _variables(ds: xr.Dataset, location: Location, group: zarr.Group, dask: bool) -> dict[str, xr.Variable]:
    """The variables as readers get them: recorded ones masked; with dask, all in chunks."""
    chunks = {name: Chunks(location, array) for name, array in group.arrays()}
    chunks["written"] = marker = marker_chunks(location, group)
    rows = (*cell_dims(ds), "sample")
    recorded: Any = ds.attrs.get("recorded", ()) if "configuration" in ds.attrs else ()
    found = {str(name): variable.variable for name, variable in ds.data_vars.items()}
    for name, variable in found.items():
        if name != "written" and "timestep" in variable.dims:
            least = 3 if is_tensor(ds, name) else 1
            # A copy that xarray wrote holds scaled float32, and the exponents beside it.
            exponent = chunks.get(f"{name}_exponent") if variable.dtype == "float16" else None
            found[name] = masked(variable, Recorded(chunks[name], marker, least, exponent))
        elif name in recorded and variable.dims[: len(rows)] == rows == ds["written"].dims[: len(rows)]:
            found[name] = masked(variable, Final(chunks[name], marker, len(rows)))
    if not dask:
        return found
    return {name: chunked(variable, chunks[name].size, cell_dims(ds)) for name, variable in found.items()}
