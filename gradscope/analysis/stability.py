"""How the gradients behaved: curves over the timesteps with intervals, and what chance alone would give."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
import xarray as xr

from gradscope.analysis.contents import Cell, Written, cells, place, require, written
from gradscope.analysis.means import mean_interval
from gradscope.analysis.subsets import whole
from gradscope.analysis.tensors import from_tensors
from gradscope.errors import GradscopeError
from gradscope.store.dims import cell_dims, over
from gradscope.store.grid import OF_TIMESTEPS

__all__ = ["QUANTILES", "Written", "curves", "from_tensors", "permutation_null", "require", "written"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BOUND = ["low", "high"]


def curves(ds: xr.Dataset, names: str | Sequence[str] | None = None) -> xr.Dataset:
    """Means, intervals and quantiles over samples of the recorded scalar diagnostics.

    Parameters
    ----------
    ds
        A store; read one variable of one cell at a time.
    names
        Diagnostic or diagnostics over cells, sample and timestep; all that are recorded where None.

    Returns
    -------
    xarray.Dataset
        Over cells and timestep: ``<name>``, the mean over samples; ``<name>_interval``, its 95 % interval (Student)
        over ``bound``; ``<name>_quantile`` over ``quantile`` (`QUANTILES`); ``<name>_n``, the finite samples, of which
        alone the others are made; and ``samples``, the written ones. NaN without finite samples.

    Raises
    ------
    GradscopeError
        A name is not in the store.
    """
    ds = whole(ds)
    names = [names] if isinstance(names, str) else names
    along = {*over(ds)}
    if names is None:
        names = [str(name) for name, v in ds.data_vars.items() if {*v.dims} == along and v.dtype.kind == "f"]
    require(ds, *names)
    if other := [name for name in names if {*ds[name].dims} != along]:
        raise GradscopeError(f"{other[0]} is not a diagnostic over cells, samples and timesteps")
    dims = (*cell_dims(ds), "timestep")
    shape = tuple(ds.sizes[dim] for dim in dims)
    out = xr.Dataset(
        {"samples": (ds["written"] > 0).sum("sample").transpose(*dims).compute()},
        coords={name: ds[name] for name in (*dims, *OF_TIMESTEPS) if name in ds.coords},
    ).assign_coords(bound=_BOUND, quantile=list(QUANTILES))
    for name in names:
        mean, n = np.full(shape, np.nan), np.zeros(shape, dtype=np.int64)
        interval, quantile = np.full((*shape, 2), np.nan), np.full((*shape, len(QUANTILES)), np.nan)
        for cell in cells(ds):
            index = place(ds, cell)
            at = tuple(index.values())
            values = ds[name].isel(index).transpose("sample", "timestep").values.astype(np.float64)
            mean[at], *bounds, n[at] = mean_interval(values)
            interval[at] = np.stack(bounds, axis=-1)
            known = n[at] > 0
            if not known.any():
                continue
            finite = np.where(np.isfinite(values), values, np.nan)[:, known]
            quantile[at][known] = np.nanquantile(finite, QUANTILES, axis=0).T
        about = ds[name].attrs
        out[name] = (dims, mean, about)
        out[f"{name}_interval"] = ((*dims, "bound"), interval, about)
        out[f"{name}_quantile"] = ((*dims, "quantile"), quantile, about)
        out[f"{name}_n"] = (dims, n)
    return out


def permutation_null(ds: xr.Dataset, cell: Cell, draws: int = 4096, seed: int = 0) -> xr.Dataset:
    """Cosines of successive gradients that belong to different samples: what a trajectory without memory would show.

    Sample i's gradient at t is paired with sample j's at the step before, for all ordered pairs i, j of different
    samples. A `gradient_cosine` inside this interval is that of an unstable gradient. For white noise over d elements
    the cosines have mean 0 and standard deviation 1/sqrt(d); a mean above 0 shows a direction that all samples share.

    Parameters
    ----------
    ds
        A store with the tensor ``gradient``; read a chunk of timesteps at a time.
    cell
        The cell's names; dimensions of size one may be left out.
    draws
        Where the samples with tensors give more pairs, so many samples are drawn that their pairs are at least as many.
    seed
        Of that draw.

    Returns
    -------
    xarray.Dataset
        Over timestep: ``null_mean``; ``null_interval``, the 0.025 and 0.975 quantiles of the pairs' cosines, over
        ``bound``; and ``null_n``, the pairs whose cosine is finite. NaN where there are none.

    Raises
    ------
    GradscopeError
        The store has no such cell, or no gradients.
    """
    require(ds, "gradient")
    chosen = ds.isel(place(ds, cell))
    stored = (chosen["written"] >= 3).transpose("sample", "timestep").values
    rows = np.flatnonzero(stored.any(axis=1))
    most = ceil((1 + (1 + 4 * draws) ** 0.5) / 2)  # n (n - 1) >= draws
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    gradient = chosen["gradient"].isel(sample=rows).transpose("timestep", "sample", ...)
    steps = len(chosen["timestep"])
    mean, interval, n = np.full(steps, np.nan), np.full((steps, 2), np.nan), np.zeros(steps, dtype=np.int64)
    others = ~np.eye(len(rows), dtype=bool)
    before = None
    chunk = gradient.variable.chunksizes.get("timestep", (1,))[0]
    for step in range(steps):
        if step % chunk == 0:
            loaded = gradient.isel(timestep=slice(step, step + chunk)).values
        now = np.where(stored[rows, step, None], _unit(loaded[step % chunk]), np.nan)
        if before is not None:
            cosine = (now @ before.T)[others]
            cosine = cosine[np.isfinite(cosine)]
            n[step] = len(cosine)
            if len(cosine):
                mean[step], interval[step] = cosine.mean(), np.quantile(cosine, (0.025, 0.975))
        before = now
    return xr.Dataset(
        {
            "null_mean": ("timestep", mean),
            "null_interval": (("timestep", "bound"), interval),
            "null_n": ("timestep", n),
        },
        coords={"timestep": ds["timestep"], "bound": _BOUND},
    )


def _unit(gradient: np.ndarray) -> np.ndarray:
    """Each sample divided by its norm, ``(n, elements)``; NaN where that is zero or not finite."""
    flat = gradient.reshape(len(gradient), prod(gradient.shape[1:])).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))
