"""Subsets of a store: what `ds.sel(classifier="robust")` or `ds.isel(sample=0)` leaves is analysed like a whole one."""

import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.dims import REPEAT, over
from gradscope.store.grid import OF_SAMPLES, OF_TIMESTEPS


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
    for dim in over(ds):
        if dim not in ds.dims:
            ds = _with(ds, dim)
    return _last_repetition(ds) if REPEAT in ds.dims else ds


def _last_repetition(ds: xr.Dataset) -> xr.Dataset:
    """Of each timestep that was repeated its last repetition: that from which the sampler went on."""
    last = ((ds["written"] > 0).sum(REPEAT) - 1).clip(min=0).compute()
    if (last == last.max()).all():
        return ds.isel({REPEAT: int(last.max())}, drop=True)
    picked = {name: v.isel({REPEAT: last}) if REPEAT in v.dims else v for name, v in ds.data_vars.items()}
    return xr.Dataset(picked, attrs=ds.attrs).drop_vars(REPEAT, errors="ignore")


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
    names += [name for name in OF_SAMPLES if dim == "sample" and name in ds.coords]
    names += [name for name in OF_TIMESTEPS if dim == "timestep" and name in ds.coords]
    ds = ds.reset_coords([name for name in names if name in ds.coords])
    wide = {name: ds[name].drop_vars(dim).expand_dims({dim: [ds[dim].item()]}) for name in names}
    ds = ds.drop_vars([dim, *names]).assign(wide)
    return ds.set_coords([name for name in (*OF_SAMPLES, *OF_TIMESTEPS) if name in ds])


def _has(name: str, dim: str, recorded: set[str]) -> bool:
    """Whether a variable of a store goes along the dimension."""
    if dim == "timestep":
        return name in recorded and name != "image" and not name.endswith("_prediction")
    if dim == "sample":
        return name in recorded or name.endswith("_prediction")
    return not name.endswith("_floor")  # what other real images reach is of no cell
