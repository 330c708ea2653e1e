"""Recompute stored scalars from other arrays of the store, with the tolerance of each."""

import json
from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.tensors import from_tensors
from gradscope.errors import GradscopeError
from gradscope.store.dims import over, sample_dims

NORMS = frozenset({"gradient_norm", "update_norm"})
_FRACTIONS = frozenset({"finite_fraction", "zero_fraction"})
_TINY = 1e-37  # processes may flush numbers below float32's normal range
_FLOAT32, _FLOAT16 = 1e-5, 2.0**-9
"""Tolerances. Probes compute in float64 and store in float32, which rounds by 6e-8: the tolerance is a hundred times
that. An element stored as float16 has a relative error of at most 2**-11, and so has a norm; a cosine has twice that,
and the tolerance is twice the error of a cosine."""
_CANCELLED = 4e-6
"""Error of a difference of float32 numbers near 1: of the score, before its division by sqrt(1 - alphas_cumprod), and
of unit gradients, whose difference earlier versions took in float32."""

_RELATIVE = frozenset({*NORMS, "gradient_lipschitz", "unit_gradient_lipschitz", "effective_strength"})
_FROM_TENSORS = (
    *sorted(_RELATIVE - {"effective_strength"}),
    *("gradient_cosine", "update_cosine", "score_cosine", *sorted(_FRACTIONS), "clipped_fraction"),
    "high_frequency_share",
)
_SUCCESSIVE = frozenset({"gradient_cosine", "update_cosine", "gradient_lipschitz", "unit_gradient_lipschitz"})
_OF_ANY_SIZE = frozenset({*NORMS, "finite_fraction", "clipped_fraction", "effective_strength"})
_LOST, _ANY_LOST = 1e-30, 1e-28
"""A stored tensor with a norm below these may have lost too much, or any element at all, to zero: probes see float64,
and float32 with flushed denormals keeps nothing below 1e-38."""
_NOT_OF_FLOAT16 = frozenset({"zero_fraction", "clipped_fraction", "gradient_lipschitz", "unit_gradient_lipschitz"})
"""Rounding to float16 makes elements zero or clamped, and differences of successive steps arbitrarily wrong."""

Floats = NDArray[np.float64]


def expected(ds: xr.Dataset) -> dict[str, tuple[Floats, Floats]]:
    """Recompute the scalars of a store, or of a part of one.

    Returns
    -------
    dict of str to tuple of numpy.ndarray
        By name, over cells, sample and timestep: the value (NaN if unknown, infinite if it is not finite), and the
        tolerance of the stored one.
    """
    half = any(str(name).endswith("_exponent") for name in ds.data_vars)
    names = [name for name in _FROM_TENSORS if name in ds and not (half and name in _NOT_OF_FLOAT16)]
    try:
        found = from_tensors(ds, {*names, "gradient_cosine", *NORMS})
    except GradscopeError:  # the store has none of their tensors
        found = xr.Dataset()
    turn = found["gradient_cosine"].values if "gradient_cosine" in found else np.array(np.nan)
    values = {name: _known(ds, name, found, half) for name in names if name in found}
    if (strength := _strength(ds)) is not None:
        values["effective_strength"] = strength
    return {name: (value, _tolerance(ds, name, value, half, turn)) for name, value in values.items()}


def finite_so_far(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Whether the gradient was finite up to each step; False if that is not recorded."""
    if "finite_fraction" not in ds:
        return np.zeros([ds.sizes[dim] for dim in over(ds)], bool)
    finite = (ds["finite_fraction"].values == 1) & (ds["written"].values > 0)
    return np.asarray(np.logical_and.accumulate(finite, axis=-1))


def _known(ds: xr.Dataset, name: str, found: xr.Dataset, half: bool) -> Floats:
    """The recomputed value, NaN where the stored one may differ from it."""
    with np.errstate(over="ignore"):
        value = found[name].values.astype(np.float32).astype(np.float64)
    if name in NORMS | _FRACTIONS:  # known for every tensor
        value = np.where(np.isnan(value) & (ds["written"].values >= 3), np.inf, value)
    if name == "finite_fraction" and half:
        stored = ds[name].values  # no exponent fits a tensor that is not finite, so more elements may be lost
        value = np.where((value == 1) | (stored == 1), value, np.nan)
    if name == "zero_fraction":  # probes see float64, and an element below float32's range is stored as 0
        value = np.where(value > ds[name].values, np.nan, value)
    if name == "clipped_fraction":  # elements at 1 and none larger mean a clamp at 1; the store does not have the bound
        value = np.where(value > 0, value, np.nan)
    if name == "score_cosine":
        clipped = ds["clipped_fraction"].values if "clipped_fraction" in ds else np.nan
        value = np.where(clipped == 0, value, np.nan)
    return value if name in _OF_ANY_SIZE else np.where(_flushed(found, name), np.nan, value)


def _flushed(found: xr.Dataset, name: str) -> NDArray[np.bool_]:
    """Where the tensor behind a scalar is too small to recompute it, now or at the previous step."""
    norm = found["update_norm" if name == "update_cosine" else "gradient_norm"].values
    tiny = norm < (_ANY_LOST if name == "zero_fraction" else _LOST)
    if name not in _SUCCESSIVE:
        return np.asarray(tiny)
    before = np.concatenate([np.zeros_like(tiny[..., :1]), tiny[..., :-1]], axis=-1)
    return np.asarray(tiny | before)


def _tolerance(ds: xr.Dataset, name: str, value: Floats, half: bool, turn: Floats) -> Floats:
    """Tolerance of a stored scalar; `turn` is the cosine of successive gradients."""
    unit = _FLOAT16 if half and name not in ("finite_fraction", "effective_strength") else _FLOAT32
    with np.errstate(divide="ignore", invalid="ignore"):
        if name in ("unit_gradient_lipschitz", "gradient_lipschitz"):
            lost = np.nan_to_num(_CANCELLED / np.sqrt(2 * np.clip(1 - turn, 0, None)), posinf=np.inf)
        elif name == "score_cosine":
            lost = (unit if half else _CANCELLED) / np.sqrt(1 - ds["alphas_cumprod"].values)
        else:
            lost = np.zeros(())
    tolerance = np.broadcast_to(unit + lost, value.shape)
    return np.asarray(tolerance * np.abs(value) + _TINY if name in _RELATIVE else tolerance)


def _strength(ds: xr.Dataset) -> Floats | None:
    """|shift| / (noise * sqrt(elements)), if the configuration determines the shift: DDPM with ``weight: one``."""
    configuration = _mapping(json.loads(ds.attrs.get("configuration", "{}")))
    guidance, sampling = (_mapping(configuration.get(key)) for key in ("guidance", "sampling"))
    normalize = guidance.get("normalize")
    known = sampling.get("scheduler") == "ddpm" and guidance.get("weight") == "one" and normalize in ("l2", "none")
    known = known and guidance.get("method", "classifier") == "classifier"
    if not known or not {"effective_strength", "update_norm", "finite_fraction", *sample_dims(ds)} <= {*ds, *ds.dims}:
        return None
    timestep, sigma = ds["timestep"].values, ds["sigma"].values
    first, end = guidance.get("interval") or (-np.inf, np.inf)
    elements = prod(ds.sizes[dim] for dim in sample_dims(ds))
    update, finite = ds["update_norm"].values.astype(np.float64), ds["finite_fraction"].values
    # A norm of 0 may have been flushed, its direction not. The direction of a gradient that is not finite is 0.
    length = np.where(update > 0, 1.0 if normalize == "l2" else update, np.nan)
    length = np.where(finite < 1, 0.0, np.where(finite == 1, length, np.nan))
    along = [len(ds["guidance_scale"]) if dim == "guidance_scale" else 1 for dim in over(ds)]
    scale = ds["guidance_scale"].values.astype(np.float64).reshape(along)
    with np.errstate(divide="ignore", invalid="ignore"):
        amount = np.abs(scale) * ((first <= timestep) & (timestep < end))
        # Stores of earlier versions lack the noise added; they divide by sigma.
        added = ds["noise_added"].values.astype(np.float64) if "noise_added" in ds else np.zeros_like(length)
        noise = np.where(added > 0, added, sigma)
        value = amount * length / (noise * np.sqrt(elements))
    return np.where((noise > 0) & (ds["written"].values > 0), value, np.nan)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
