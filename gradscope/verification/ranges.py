"""Ranges of a store's values: a value outside was never recorded."""

import numpy as np
import xarray as xr

from gradscope.analysis.diagnostics import described
from gradscope.analysis.verdicts import class_names

_ROUNDING = 1e-5  # relative error of values stored as float32
_LEVEL = 1e-4  # error of noise levels, which some schedulers keep as float32
_OUTCOMES = {
    **dict.fromkeys(("own_accuracy", "judge_accuracy", "class_accuracy", "precision", "recall", "coverage"), (0, 1)),
    **dict.fromkeys(("density", "confusion"), (0, np.inf)),
    "transfer_ratio": (-np.inf, np.inf),  # below 0 where the judge is right less often than by chance
}
"""Ranges of the arrays that an evaluation adds, and of their intervals."""
_FINITE = ("alphas_cumprod", "sigma", "signal", "noise", "guidance_scale")
VERDICTS = ("own_prediction", "judge_prediction")
"""Predicted classes over cells and sample; -1 if there is none."""


def range_of(ds: xr.Dataset, name: str) -> tuple[float, float]:
    """Smallest and largest possible value of a scalar, a verdict or a coordinate; infinite if there is no bound."""
    last_class = len(class_names(ds)) - 1 if class_names(ds) else np.inf
    unknown = -1 if ds.attrs.get("watched") else 0  # of a watched loop, classes and seeds may be unknown
    if name in VERDICTS:
        return -1, last_class
    if name in ("predicted_class", "label"):
        return unknown, last_class
    if (low_high := _OUTCOMES.get(name.removesuffix("_interval").removesuffix("_floor"))) is not None:
        return low_high[0] - _ROUNDING, low_high[1] + _ROUNDING
    if name.startswith("fd_") and not name.endswith("_interval"):
        return -_ROUNDING, np.inf
    if name == "seed":
        return unknown, np.inf
    if name == "timestep" and (ds.attrs.get("watched") or ds[name].dtype.kind == "f"):
        return -np.inf, np.inf  # EDM's timesteps are logarithms of noise
    if name in ("timestep", "step", "sample"):
        return 0, np.inf
    if name == "alphas_cumprod":
        return 0, 1 + _ROUNDING
    if name in ("sigma", "signal", "noise"):
        return -_ROUNDING, np.inf
    row = described(ds, name)
    return (
        -np.inf if row.low is None else row.low - _ROUNDING,
        np.inf if row.high is None else row.high + _ROUNDING,
    )


def unlike_levels(ds: xr.Dataset, name: str) -> np.ndarray | None:
    """Whether each value of ``alphas_cumprod`` or ``log_snr`` is another one than signal and noise give.

    Bool, ``(timesteps,)``; None where the store lacks one of them. Unknown values, NaN, are right.
    """
    if not {"signal", "noise", name} <= ds.variables.keys():
        return None
    signal, noise, stored = (np.atleast_1d(ds[each].values).astype(np.float64) for each in ("signal", "noise", name))
    with np.errstate(divide="ignore", invalid="ignore"):
        known = {
            "alphas_cumprod": signal**2 / (signal**2 + noise**2),
            "log_snr": 2 * (np.log(signal) - np.log(noise)),
        }[name]
    return ~(np.isclose(stored, known, rtol=_LEVEL, atol=_LEVEL, equal_nan=True) | np.isnan(known) | np.isnan(stored))


def outside(ds: xr.Dataset, name: str) -> np.ndarray:
    """Whether each value lies outside its range, bool, in the variable's shape.

    NaN counts as inside, except for coordinates, which must be finite.
    """
    low, high = range_of(ds, name)
    values = ds[name].values
    if values.dtype.kind not in "iuf":
        return np.zeros(values.shape, bool)
    found = np.asarray((values < low) | (values > high))
    finite = {"guidance_scale"} if ds.attrs.get("watched") else _FINITE  # its noise levels may be unknown
    return found | ~np.isfinite(values) if name in finite else found
