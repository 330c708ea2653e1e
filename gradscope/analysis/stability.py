"""How the gradients behaved over the timesteps: curves with intervals, and the cosines that chance alone would give."""

from collections.abc import Sequence
from math import ceil, prod

import numpy as np
import xarray as xr

from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.means import mean_interval
from gradscope.analysis.missing import require
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.tensors import from_tensors
from gradscope.analysis.written import Written, written
from gradscope.errors import GradscopeError
from gradscope.store.dims import OF_TIMESTEPS, cell_dims, over

__all__ = ["QUANTILES", "Written", "curves", "from_tensors", "permutation_null", "require", "written"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_BOUND = ["low", "high"]


def curves(ds: xr.Dataset, names: str | Sequence[str] | None = None) -> xr.Dataset:
    """Means, intervals and quantiles over samples of the recorded scalar diagnostics.

    Parameters
    ----------
    ds
        A store. One variable of one cell is read at a time.
    names
        One diagnostic or several, over cells, sample and timestep. None means every recorded one.

    Returns
    -------
    xarray.Dataset
        Over cells and timestep: ``<name>``, the mean over samples; ``<name>_interval``, its 95 % interval (Student)
        over ``bound``; ``<name>_quantile`` over ``quantile`` (`QUANTILES`); ``<name>_n``, the number of finite samples;
        and ``samples``, the number of written ones. Samples that are not finite are left out; without finite samples
        the values are NaN.

    Raises
    ------
    GradscopeError
        A name is not in the store.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories("white_noise", samples=32, timesteps=25)
    >>> found = curves(ds, "gradient_cosine")
    >>> found.gradient_cosine_interval.dims
    ('classifier', 'classifier_input', 'stabilizer', 'guidance_scale', 'timestep', 'bound')
    >>> abs(float(found.gradient_cosine.mean())) < 0.02
    True
    """
    ds = restore_dims(ds)
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
    """Cosines of successive gradients of different samples, as a trajectory without memory would show them.

    Sample i's gradient at t is paired with sample j's at the step before, for all ordered pairs i, j of different
    samples. A gradient whose `gradient_cosine` lies inside this interval is unstable. For white noise over d elements
    the cosines have mean 0 and standard deviation 1/sqrt(d); a mean above 0 shows a direction that all samples share.

    Parameters
    ----------
    ds
        A store with the tensor ``gradient``. One chunk of timesteps is read at a time.
    cell
        The cell's names; dimensions of size one may be left out.
    draws
        Smallest number of pairs. If the samples with tensors give more, only as many samples are drawn as needed.
    seed
        Seed of that draw.

    Returns
    -------
    xarray.Dataset
        Over timestep: ``null_mean``; ``null_interval``, the 0.025 and 0.975 quantiles of the pairs' cosines, over
        ``bound``; and ``null_n``, the number of pairs whose cosine is finite. NaN where there are none.

    Raises
    ------
    GradscopeError
        The store has no such cell, or no gradients.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=8, timesteps=5)
    >>> permutation_null(ds, {}).null_n.values.tolist()  # 8 * 7 ordered pairs, none at the first step
    [0, 56, 56, 56, 56]
    """
    require(ds, "gradient")
    chosen = ds.isel(place(ds, cell))
    stored = (chosen["written"] >= 3).transpose("sample", "timestep").values
    rows = np.flatnonzero(stored.any(axis=1))
    most = ceil((1 + (1 + 4 * draws) ** 0.5) / 2)  # smallest n with n (n - 1) >= draws
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
    """Each sample divided by its norm, ``(n, elements)``; NaN where the norm is zero or not finite."""
    flat = gradient.reshape(len(gradient), prod(gradient.shape[1:])).astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(flat / np.linalg.norm(flat, axis=1, keepdims=True))
