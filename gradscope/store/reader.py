"""Reading a store."""

import xarray as xr
import zarr

from gradscope.errors import GradscopeError
from gradscope.store.attributes import as_texts
from gradscope.store.chunks import Chunks
from gradscope.store.dims import is_tensor
from gradscope.store.lazy import Recorded, lazy
from gradscope.store.locations.location import ROOT, Location, StorePath, locate
from gradscope.store.untrusted import root as trust
from gradscope.store.untrusted.bounded import Bounded


def open_store(where: StorePath) -> xr.Dataset:
    """Open a store lazily; what is not yet written is masked (NaN, and -1 for integers).

    Where a timestep comes twice, samples are selected by ``step``, which does not: ``ds.sel(step=3)``.

    Tensors stored as float16 come back as float32, scaled by their exponents. The attribute ``status`` is
    ``recording`` only while a process records; a run that was killed is ``interrupted``.

    Parameters
    ----------
    where
        A path, or the URL of a store in an object store.

    Raises
    ------
    GradscopeError
        There is no store, or it was written by a later version.

    Examples
    --------
    >>> ds = gradscope.open("runs/both.zarr")
    >>> ds.gradient_cosine.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale', 'sample', 'timestep')
    """
    location = locate(where)
    group = open_arrays(location)
    try:
        # Values as they are stored: what a stranger's attributes would make of them is not recorded.
        ds = xr.open_zarr(group.store, chunks={}, zarr_format=3, mask_and_scale=False, decode_times=False)
        # Small, and groupby("label") needs them. In a task of dask its scheduler would wait for that very task.
        ds = ds.assign_coords({name: coord.load(scheduler="synchronous") for name, coord in ds.coords.items()})
        masked = _masked(ds, location, group)
        trust.check_coordinates(ds, str(location))
    except GradscopeError:
        raise
    except Exception as error:  # zarr and codecs raise of many kinds
        raise GradscopeError(f"{location} is damaged: {error}") from error
    if ds.attrs.get("status") == "recording" and not location.locked():
        ds.attrs["status"] = "interrupted"
    ds.attrs = as_texts(ds.attrs)
    ds = ds.assign(masked)
    if "timestep" in ds.dims and not ds.indexes["timestep"].is_unique:  # a solver evaluates the denoiser twice there
        ds = ds.drop_indexes("timestep").set_xindex("step")
    return ds


def open_arrays(where: StorePath) -> zarr.Group:
    """The arrays of a store as they are stored; no chunk of them takes more than the metadata say.

    Raises
    ------
    GradscopeError
        There is no store, or it was written by a later version.
    """
    location = locate(where)
    content = location.read(ROOT)
    if content is None:
        raise GradscopeError(f"{location} is not a zarr store (no {ROOT} in it)")
    document = trust.parse(content, str(location))
    if location.path is not None:
        trust.check_links(location.path)
    store = Bounded(location, document)
    try:
        return zarr.open_group(store, mode="r", zarr_format=3)
    except Exception as error:  # zarr and codecs raise of many kinds
        raise GradscopeError(f"{location} is damaged: {error}") from error


def _masked(ds: xr.Dataset, location: Location, group: zarr.Group) -> dict[str, xr.Variable]:
    chunks = {name: Chunks(location, array) for name, array in group.arrays()}
    timed = {}
    for name, variable in ((str(key), found) for key, found in ds.data_vars.items()):
        if name != "written" and "timestep" in variable.dims:
            least = 3 if is_tensor(ds, name) else 1
            # A copy by xarray has float32, scaled, and the exponents beside it.
            exponent = chunks.get(f"{name}_exponent") if variable.dtype == "float16" else None
            recorded = Recorded(chunks[name], chunks["written"], least, exponent)
            timed[name] = lazy(variable.dims, recorded, variable.attrs)
    return timed
