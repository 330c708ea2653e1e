"""Subsets of a store: what `ds.sel(classifier="robust")` or `ds.isel(sample=0)` leaves is analysed like a whole one."""

import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS

_OF_SAMPLES = ("label", "seed")
_OF_TIMESTEPS = ("step", "alphas_cumprod", "sigma")


def whole(ds: xr.Dataset) -> xr.Dataset:
    """The dataset with the dimensions of cells, samples and timesteps that a selection of one value took away.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.

    Raises
    ------
    GradscopeError
        The coordinate of a dimension is gone, too, or it is no store at all.
    """
    if not isinstance(ds, xr.Dataset):
        raise GradscopeError(f"takes a store as gradscope.open gives it, got {ds!r:.80}")
    if "written" not in ds:
        raise GradscopeError("this is no store of gradscope's, nor a selection of one: it has no variable `written`")
    # A selection of one class leaves its name, beside which there are no numbers by class.
    if alone := [name for name in ("class", "judge_class", "bound") if name in ds.coords and not ds[name].dims]:
        ds = ds.drop_vars(alone)
    for dim in (*CELL_DIMS, "sample", "timestep"):
        if dim not in ds.dims:
            ds = _with(ds, dim)
    return ds


def _with(ds: xr.Dataset, dim: str) -> xr.Dataset:
    if dim == "sample" and dim not in ds.coords:
        ds = ds.assign_coords(sample=0)  # stores need not number their samples
    if dim not in ds.coords:
        raise GradscopeError(f"{dim} is gone: select with a list, ds.sel({dim}=[...]), or without drop=True")
    if ds[dim].ndim:
        along = ds[dim].dims[0]
        raise GradscopeError(f"{dim} is no dimension, it goes along {along}: ds.swap_dims({along}={dim!r})")
    timed = [name for name, variable in ds.data_vars.items() if {"sample", "timestep"} & {*variable.dims}]
    recorded = {str(name) for name in ds.attrs.get("recorded", timed)}  # the first stores do not say
    names = [str(name) for name in ds.data_vars if _has(str(name), dim, recorded)]
    names += [name for name in _OF_SAMPLES if dim == "sample" and name in ds.coords]
    names += [name for name in _OF_TIMESTEPS if dim == "timestep" and name in ds.coords]
    ds = ds.reset_coords([name for name in names if name in ds.coords])
    wide = {name: ds[name].drop_vars(dim).expand_dims({dim: [ds[dim].item()]}) for name in names}
    ds = ds.drop_vars([dim, *names]).assign(wide)
    return ds.set_coords([name for name in (*_OF_SAMPLES, *_OF_TIMESTEPS) if name in ds])


def _has(name: str, dim: str, recorded: set[str]) -> bool:
    """Whether a variable of a store goes along the dimension."""
    if dim == "timestep":
        return name in recorded and name != "image" and not name.endswith("_prediction")
    if dim == "sample":
        return name in recorded or name.endswith("_prediction")
    return not name.endswith("_floor")  # what other real images reach is of no cell
