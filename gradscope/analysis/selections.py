"""Selections of a store, such as `ds.sel(classifier="robust")` or `ds.isel(sample=0)`: analysed like a whole store."""

import xarray as xr

from gradscope.errors import GradscopeError
from gradscope.store.dims import OF_SAMPLES, OF_TIMESTEPS, REPEAT, over


def restore_dims(ds: xr.Dataset) -> xr.Dataset:
    """Restore the dimensions of cells, samples and timesteps that a selection of one value removed.

    Where timesteps were repeated, only the last repetition of each stays: the sampler continued from it.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.

    Raises
    ------
    GradscopeError
        The coordinate of a dimension is missing too, or this is not a store.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> one = synthetic.trajectories(samples=2, timesteps=5).isel(sample=0)
    >>> "sample" in one.dims, restore_dims(one).sizes["sample"]
    (False, 1)
    """
    if not isinstance(ds, xr.Dataset):
        raise GradscopeError(f"takes a store as gradscope.open gives it, got {ds!r:.80}")
    if "written" not in ds:
        raise GradscopeError(
            "not a gradscope store, nor a selection of one: the variable `written` is missing; keep it in a selection"
        )
    # A selection of one class keeps the class's name, but numbers by class are gone.
    if alone := [name for name in ("class", "judge_class", "bound") if name in ds.coords and not ds[name].dims]:
        ds = ds.drop_vars(alone)
    for dim in over(ds):
        if dim not in ds.dims:
            ds = _restore(ds, dim)
    return _last_repetition(ds) if REPEAT in ds.dims else ds


def _last_repetition(ds: xr.Dataset) -> xr.Dataset:
    """Keep the last repetition of each timestep that was repeated: the sampler continued from it."""
    last = ((ds["written"] > 0).sum(REPEAT) - 1).clip(min=0).compute()
    if (last == last.max()).all():
        return ds.isel({REPEAT: int(last.max())}, drop=True)
    picked = {name: v.isel({REPEAT: last}) if REPEAT in v.dims else v for name, v in ds.data_vars.items()}
    return xr.Dataset(picked, attrs=ds.attrs).drop_vars(REPEAT, errors="ignore")


def _restore(ds: xr.Dataset, dim: str) -> xr.Dataset:
    """Give back one dimension, of size one, to every variable that has it in a store."""
    if dim == "sample" and dim not in ds.coords:
        ds = ds.assign_coords(sample=0)  # stores need not number their samples
    if dim not in ds.coords:
        raise GradscopeError(f"{dim} is gone: select with a list, ds.sel({dim}=[...]), or without drop=True")
    if ds[dim].ndim:
        along = ds[dim].dims[0]
        raise GradscopeError(f"{dim} is not a dimension here but lies along {along}: ds.swap_dims({along}={dim!r})")
    timed = [name for name, variable in ds.data_vars.items() if {"sample", "timestep"} & {*variable.dims}]
    recorded = {str(name) for name in ds.attrs.get("recorded", timed)}  # the oldest stores have no such list
    names = [str(name) for name in ds.data_vars if _has(str(name), dim, recorded)]
    names += [name for name in OF_SAMPLES if dim == "sample" and name in ds.coords]
    names += [name for name in OF_TIMESTEPS if dim == "timestep" and name in ds.coords]
    ds = ds.reset_coords([name for name in names if name in ds.coords])
    wide = {name: ds[name].drop_vars(dim).expand_dims({dim: [ds[dim].item()]}) for name in names}
    ds = ds.drop_vars([dim, *names]).assign(wide)
    return ds.set_coords([name for name in (*OF_SAMPLES, *OF_TIMESTEPS) if name in ds])


def _has(name: str, dim: str, recorded: set[str]) -> bool:
    """Whether a variable of a store has the dimension."""
    if dim == "timestep":
        return name in recorded and name != "image" and not name.endswith("_prediction")
    if dim == "sample":
        return name in recorded or name.endswith("_prediction")
    return not name.endswith("_floor")  # the score of other real images belongs to no cell
