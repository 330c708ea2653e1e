"""Signatures of the size and the content of gradients, and of how far they move the sample.

The thresholds are calibrated on runs that work and on trajectories with known faults. `runs/calibration.py` measures
how often a fault is missed and how often a healthy run is blamed.
"""

from collections.abc import Callable
from math import log, log10

import numpy as np
import xarray as xr

from gradscope.analysis.curve_signature import CurveSignature
from gradscope.store.dims import sample_dims
from probes.catalogue import threshold

LEVERAGE = 0.01
"""Leverage in nats below which a gradient cannot move the belief within a step's noise."""
EARLY = 0.02
"""Value of alphas_cumprod below which x_t is nearly all noise."""
DEAD = threshold("dead_by_clipping")
"""Share of clamped elements."""
LOST = 1e-30
"""Norm below which float32 may have rounded elements to 0."""


def leverage(cell: xr.Dataset) -> xr.DataArray:
    """Change of the objective, in nats, by a displacement along the gradient that is as long as the step's own noise.

    gradient_norm * sigma_t * sqrt(d), with d the number of elements; NaN where sigma_t is 0.
    """
    return cell["gradient_norm"] * cell["sigma"].where(cell["sigma"] > 0) * cell.attrs["elements"] ** 0.5


def _no_leverage(ds: xr.Dataset) -> str:
    """Why leverage cannot be computed from a store; empty if it can."""
    if not set(sample_dims(ds)) <= set(ds.dims):
        return "this dataset does not hold the number of elements of a sample: keep a tensor or the images in it"
    if not (ds["sigma"] > 0).any():
        return "sigma is 0 at every timestep: there is no noise to compare with"
    return ""


def _vanishing(cell: xr.Dataset) -> xr.DataArray:
    force = leverage(cell)
    return ((force < LEVERAGE) & (cell["log_prob"] < log(0.9))).where(np.isfinite(force))


def _idle(cell: xr.Dataset) -> xr.DataArray:
    """The gradient has hardly any leverage because the guide is certain of the target."""
    force = leverage(cell)
    return ((force < LEVERAGE) & (cell["log_prob"] > log(0.95))).where(np.isfinite(force))


def _saturated(cell: xr.Dataset) -> xr.DataArray:
    return _idle(cell).where(cell["alphas_cumprod"] < EARLY)


def _convinced(cell: xr.Dataset) -> xr.DataArray:
    return _idle(cell).where(cell["alphas_cumprod"] >= EARLY)


def _growth(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the norm, relative to the trajectory's median norm in the first quarter.

    The gradient of log p has a factor 1 - p. It changes with the guide's belief by many orders of magnitude, so it is
    divided out.
    """
    norm = xr.ufuncs.log10(cell["gradient_norm"].where(cell["gradient_norm"] > LOST))
    if cell.attrs.get("has_belief_factor") and "margin" in cell:
        with np.errstate(invalid="ignore"):  # timesteps that are not written are NaN
            norm = norm + xr.ufuncs.logaddexp(0, cell["margin"].astype(np.float64)) / log(10)  # -log10 sigmoid(-margin)
    first = norm.isel(timestep=slice(0, max(2, cell.sizes["timestep"] // 4))).median("timestep")
    return norm - first


def _signal(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the signal-to-noise ratio, because the ratio is skewed; NaN where all draws agree."""
    return xr.ufuncs.log10(cell["gradient_snr"].where(np.isfinite(cell["gradient_snr"])))


def _dead(cell: xr.Dataset) -> xr.DataArray:
    """Share of clamped elements; NaN if the guide does not see x0-hat."""
    sees_x0_hat = str(cell["classifier_input"].values) != "x_t"
    return cell["clipped_fraction"].where(sees_x0_hat)


def _zeros(cell: xr.Dataset) -> xr.DataArray:
    """Share of zeros in the gradient; NaN if it is zero throughout or if a clamp blocks it."""
    blocked = (_dead(cell) > DEAD) if "clipped_fraction" in cell else False
    return cell["zero_fraction"].where((cell["gradient_norm"] > 0) & np.logical_not(blocked))


def _variable(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda cell: cell[name]


MAGNITUDES = (
    CurveSignature(
        "vanishing",
        "alarm",
        ("gradient_norm", "log_prob"),
        _vanishing,
        f"share of samples that are not yet right and have less than {LEVERAGE:g} nat of leverage",
        "above",
        0.25,
        "the guide is far from the target and its gradient is gone: try objective logit, a smoother classifier (label "
        "smoothing, temperature), or one trained on x_t",
        is_share=True,
        untestable=_no_leverage,
        only_towards=True,
    ),
    CurveSignature(
        "exploding",
        "alarm",
        ("gradient_norm",),
        _growth,
        "log10 growth of the gradient norm since the first quarter (without the factor 1 - p)",
        "above",
        3.0,
        "gradients grow by orders of magnitude: normalise (guidance.normalize l2) or clip them (stabiliser clipping)",
        sustained=0.05,
        single_samples=0,
    ),
    CurveSignature(
        "inert",
        "warning",
        ("effective_strength",),
        _variable("effective_strength"),
        "shift relative to the step's noise",
        "below",
        threshold("inert"),
        "guidance moves less than a thousandth of the step's noise everywhere: raise guidance_scale, or use weight one",
        sustained=1.0,
    ),
    CurveSignature(
        "off_manifold",
        "alarm",
        ("effective_strength",),
        _variable("effective_strength"),
        "shift relative to the step's noise",
        "above",
        threshold("off_manifold"),
        "guidance moves the sample further than the step's own noise: lower guidance_scale, use weight sigma, or guide "
        "in an interval of timesteps only",
        sustained=0.1,
    ),
    CurveSignature(
        "dead_by_clipping",
        "alarm",
        ("clipped_fraction",),
        _dead,
        "share of x0-hat's elements that are clamped and so pass no gradient",
        "above",
        DEAD,
        "x0-hat is clamped nearly everywhere, and clamped elements pass no gradient: use classifier_input x0 instead "
        "of x0_detached, or a scheduler with clip_sample false",
    ),
    CurveSignature(
        "saturated_early",
        "warning",
        ("gradient_norm", "log_prob"),
        _saturated,
        "share of samples in which the guide is certain of the target while alphas_cumprod is below 0.02",
        "above",
        0.5,
        "the guide is certain of the target while x_t is nearly all noise, and stops guiding: use a calibrated or "
        "noise-aware classifier, or objective logit",
        sustained=0.5,
        is_share=True,
        untestable=_no_leverage,
        only_towards=True,
    ),
    CurveSignature(
        "convinced",
        "remark",
        ("gradient_norm", "log_prob"),
        _convinced,
        "share of samples whose gradient is small because the guide is certain of the target",
        "above",
        0.5,
        "the gradient is small because the guide is convinced, which is no fault: end guidance there "
        "(guidance.interval), because normalize l2 continues with full strength",
        is_share=True,
        untestable=_no_leverage,
        only_towards=True,
    ),
    CurveSignature(
        "sparse",
        "warning",
        ("zero_fraction", "gradient_norm"),
        _zeros,
        "share of zeros in the gradient (not due to a clamp)",
        "above",
        threshold("sparse"),
        "few elements of the sample influence the guide: look at the gradient; does the guide use max pooling, see "
        "a few elements only, or apply a mask?",
        single_samples=0,
    ),
    CurveSignature(
        "noise_dominated",
        "warning",
        ("gradient_snr",),
        _signal,
        "log10 of the gradient's signal-to-noise ratio over noise draws",
        "below",
        log10(threshold("noise_dominated")),
        "the gradient reacts to the noise in x_t and not to the sample: show the guide x0-hat, or average more draws "
        "(guidance.smoothgrad)",
    ),
    CurveSignature(
        "high_frequency",
        "warning",
        ("high_frequency_share",),
        _variable("high_frequency_share"),
        "share of the gradient's power above half the Nyquist frequency",
        "above",
        threshold("high_frequency"),
        "the gradient is texture, as in adversarial examples: use a robust classifier, or show it x0-hat",
    ),
)
