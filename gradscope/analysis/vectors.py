"""Norms and cosines of stored tensors, over the dimensions of a sample, right for gradients of any size."""

from collections.abc import Callable
from math import prod

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from gradscope.store.dims import sample_dims

Floats = NDArray[np.float64]
Tensor = str | xr.DataArray
"""The name of a variable, or an array with the dimensions of a sample."""


def norm(ds: xr.Dataset, a: Tensor) -> xr.DataArray:
    r"""The l2 norm of each sample's tensor, :math:`m \lVert a / m \rVert` with :math:`m = \max |a|`, in float64.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.
    a
        Name of a variable, or an array with some of the dimensions of a sample. The norm is over these.

    Returns
    -------
    xarray.DataArray
        Over the other dimensions; in [0, inf), in the tensor's unit. NaN if an element is NaN, so also where nothing is
        written; infinite if an element is. Lazy if the array is.

    Raises
    ------
    GradscopeError
        The store has no such variable, or the array has none of the dimensions of a sample.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=2, timesteps=3)
    >>> bool(np.allclose(norm(ds, "gradient"), ds.gradient_norm))
    True
    >>> float(norm(ds, 1e-30 * ds.gradient).max()) > 0
    True
    """
    array = _array(ds, a)
    own = _own(ds, array)
    return _applied(_norm, (array, own)).assign_attrs(_unit(array), long_name=f"l2 norm of {array.name or 'an array'}")


def cosine(ds: xr.Dataset, a: Tensor, b: Tensor) -> xr.DataArray:
    """The cosine of two tensors of each sample, in float64; both are divided by their norms first, see `norm`.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.
    a, b
        Names of variables, or arrays with the dimensions of a sample. Dimensions that only one of them has are
        broadcast. Those that both have must have equal coordinates.

    Returns
    -------
    xarray.DataArray
        Over the other dimensions, in [-1, 1]. NaN where a norm is 0 or not finite. Lazy if an array is.

    Raises
    ------
    GradscopeError
        The store has no such variable; an array has none of the dimensions of a sample; or the two have different
        ones, or different coordinates.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=2, timesteps=3)
    >>> bool(np.allclose(cosine(ds, "update", "gradient"), ds.update_gradient_cosine))
    True
    >>> before = ds.gradient.shift(timestep=1)  # the gradient of the step before; none at the first step
    >>> bool(np.allclose(cosine(ds, "gradient", before), ds.gradient_cosine, equal_nan=True))
    True
    """
    arrays = [_array(ds, each) for each in (a, b)]
    own, other = (_own(ds, array) for array in arrays)
    if own != other:
        raise GradscopeError(f"cosine: a lies over {', '.join(own)}, b over {', '.join(other)}")
    try:
        found = _applied(_cosine, *((array, own) for array in arrays))
    except ValueError as error:  # xarray's, about coordinates or sizes
        raise GradscopeError(f"cosine: a and b do not match: {' '.join(str(error).split())}") from error
    names = " and ".join(str(array.name or "an array") for array in arrays)
    return found.assign_attrs(units="1", long_name=f"cosine of {names}")


def _array(ds: xr.Dataset, given: Tensor) -> xr.DataArray:
    if isinstance(given, xr.DataArray):
        return given
    if not isinstance(given, str):
        raise GradscopeError(f"takes the name of a variable or an xarray.DataArray, got {given!r:.80}")
    require(ds, given)
    return ds[given]


def _own(ds: xr.Dataset, array: xr.DataArray) -> tuple[str, ...]:
    """The dimensions of a sample that an array has."""
    own = tuple(dim for dim in sample_dims(ds) if dim in array.dims)
    if not own:
        raise GradscopeError(
            f"{array.name or 'the array'} has none of the dimensions of a sample, {', '.join(sample_dims(ds))}; "
            f"it lies over {', '.join(map(str, array.dims)) or 'none'}"
        )
    return own


def _unit(array: xr.DataArray) -> dict[str, str]:
    return {"units": array.attrs["units"]} if "units" in array.attrs else {}


def _applied(function: Callable[..., Floats], *arrays: tuple[xr.DataArray, tuple[str, ...]]) -> xr.DataArray:
    """A function of tensors ``(..., *sample)``, in the pieces of the store if they are lazy."""
    whole = [
        array.chunk(dict.fromkeys(own, -1)) if array.chunks is not None else array for array, own in arrays
    ]  # a sample must not be cut into chunks
    found: xr.DataArray = xr.apply_ufunc(
        function,
        *whole,
        input_core_dims=[own for _, own in arrays],
        kwargs={"rank": len(arrays[0][1])},
        join="exact",
        dask="parallelized",
        output_dtypes=[np.float64],
    )
    return found.rename(None)


def _rows(x: NDArray, rank: int) -> Floats:
    """The last `rank` axes, those of a sample, as one, in float64."""
    outer = x.ndim - rank
    return x.reshape(*x.shape[:outer], prod(x.shape[outer:])).astype(np.float64)


def _norm_of_rows(x: Floats) -> Floats:
    # Squares of 1e-200 are 0, those of 1e200 infinite, so each row is divided by its largest magnitude.
    peak = np.abs(x).max(axis=-1, initial=0)
    scale = np.where(np.isfinite(peak) & (peak > 0), peak, 1.0)
    scaled = x / scale[..., None]
    return np.asarray(scale * np.sqrt(np.vecdot(scaled, scaled)))


def _norm(x: NDArray, rank: int) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        return _norm_of_rows(_rows(x, rank))


def _cosine(a: NDArray, b: NDArray, rank: int) -> Floats:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(np.vecdot(*(_units(_rows(x, rank)) for x in (a, b))).clip(-1, 1))


def _units(x: Floats) -> Floats:
    """Each row divided by its norm; NaN where that is 0 or not finite."""
    length = _norm_of_rows(x)
    known = np.isfinite(length) & (length > 0)
    # In two steps: the norm itself may be too small or too large to divide by.
    peak = np.where(known, np.abs(x).max(axis=-1, initial=0), np.nan)[..., None]
    scaled = x / peak
    return np.asarray(scaled / np.sqrt(np.vecdot(scaled, scaled))[..., None])
