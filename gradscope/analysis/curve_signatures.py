"""Signatures of how large gradients are, what they are made of, and how far they move the sample.

The thresholds are calibrated on runs that work and on trajectories with known faults; `runs/calibration.py` measures
how often a fault is missed and a healthy run is blamed.
"""

from collections.abc import Callable
from math import log, log10

import numpy as np
import xarray as xr

from gradscope.analysis.curve_test import CurveSignature
from gradscope.analysis.direction_signatures import DIRECTIONS
from gradscope.store.dims import sample_dims
from probes.catalogue import threshold

LEVERAGE = 0.01
"""Nats; a gradient of less leverage cannot move the belief within a step's noise."""
EARLY = 0.02
"""alphas_cumprod below which there is hardly an image."""
DEAD = threshold("dead_by_clipping")
"""Share of elements."""
LOST = 1e-30
"""Norms below which float32 may have lost a part."""


def leverage(cell: xr.Dataset) -> xr.DataArray:
    """Nats by which a displacement along the gradient, as long as the step's own noise, changes the objective.

    gradient_norm * sigma_t * sqrt(d); NaN where sigma_t is 0.
    """
    return cell["gradient_norm"] * cell["sigma"].where(cell["sigma"] > 0) * cell.attrs["elements"] ** 0.5


def _no_leverage(ds: xr.Dataset) -> str:
    """Why leverage cannot be had of a store; empty where it can."""
    if not set(sample_dims(ds)) <= set(ds.dims):
        return "the number of a sample's elements is not in this dataset: keep a tensor, or the images"
    if not (ds["sigma"] > 0).any():
        return "sigma is 0 at every timestep: there is no noise to compare with"
    return ""


def _vanishing(cell: xr.Dataset) -> xr.DataArray:
    force = leverage(cell)
    return ((force < LEVERAGE) & (cell["log_prob"] < log(0.9))).where(np.isfinite(force))


def _idle(cell: xr.Dataset) -> xr.DataArray:
    """Hardly any leverage, and the guide is certain of the target."""
    force = leverage(cell)
    return ((force < LEVERAGE) & (cell["log_prob"] > log(0.95))).where(np.isfinite(force))


def _saturated(cell: xr.Dataset) -> xr.DataArray:
    return _idle(cell).where(cell["alphas_cumprod"] < EARLY)


def _convinced(cell: xr.Dataset) -> xr.DataArray:
    return _idle(cell).where(cell["alphas_cumprod"] >= EARLY)


def _growth(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the norm over the trajectory's median norm in the first quarter.

    The gradient of log p has a factor 1 - p, which comes and goes with the guide's belief by any number of orders of
    magnitude; it is divided out.
    """
    norm = xr.ufuncs.log10(cell["gradient_norm"].where(cell["gradient_norm"] > LOST))
    if cell.attrs.get("factored") and "margin" in cell:
        with np.errstate(invalid="ignore"):  # of what is not written
            norm = norm + xr.ufuncs.logaddexp(0, cell["margin"].astype(np.float64)) / log(10)  # -log10 sigmoid(-margin)
    first = norm.isel(timestep=slice(0, max(2, cell.sizes["timestep"] // 4))).median("timestep")
    return norm - first


def _signal(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the signal-to-noise ratio, which is skewed; NaN where all draws agree."""
    return xr.ufuncs.log10(cell["gradient_snr"].where(np.isfinite(cell["gradient_snr"])))


def _dead(cell: xr.Dataset) -> xr.DataArray:
    """Share of clamped elements, where the guide sees x0-hat."""
    through = str(cell["classifier_input"].values) != "x_t"
    return cell["clipped_fraction"].where(through)


def _zeros(cell: xr.Dataset) -> xr.DataArray:
    """Share of zeros in a gradient that is not all zero, and that no clamp holds back."""
    held_back = (_dead(cell) > DEAD) if "clipped_fraction" in cell else False
    return cell["zero_fraction"].where((cell["gradient_norm"] > 0) & np.logical_not(held_back))


def _variable(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda cell: cell[name]


CURVES = (
    *DIRECTIONS,
    CurveSignature(
        "vanishing",
        "alarm",
        ("gradient_norm", "log_prob"),
        _vanishing,
        f"share of samples that are not yet right with less than {LEVERAGE:g} nat of leverage",
        "above",
        0.25,
        "the guide is far from the target and its gradient is gone: try objective logit, a smoother classifier (label "
        "smoothing, temperature), or one trained on x_t",
        is_share=True,
        testable=_no_leverage,
        towards=True,
    ),
    CurveSignature(
        "exploding",
        "alarm",
        ("gradient_norm",),
        _growth,
        "log10 growth of the gradient norm against the first quarter (without the factor 1 - p)",
        "above",
        3.0,
        "gradients grow by orders of magnitude: normalise (guidance.normalize l2) or clip them (stabiliser clipping)",
        sustained=0.05,
        alone=0,
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
        "guidance moves further than the step's own noise: lower guidance_scale, weigh it by sigma, or guide in an "
        "interval of timesteps only",
        sustained=0.1,
    ),
    CurveSignature(
        "dead_by_clipping",
        "alarm",
        ("clipped_fraction",),
        _dead,
        "share of x0-hat's elements that are clamped, and pass no gradient,",
        "above",
        DEAD,
        "x0-hat is clamped nearly everywhere and clamped pixels pass no gradient: use classifier_input x0 instead of "
        "x0_detached, or a scheduler with clip_sample false",
    ),
    CurveSignature(
        "saturated_early",
        "warning",
        ("gradient_norm", "log_prob"),
        _saturated,
        "share of samples that the guide takes for done while alphas_cumprod is below 0.02",
        "above",
        0.5,
        "the guide is certain of the target before there is an image, and stops guiding: use a calibrated or "
        "noise-aware classifier, or objective logit",
        sustained=0.5,
        is_share=True,
        testable=_no_leverage,
        towards=True,
    ),
    CurveSignature(
        "convinced",
        "remark",
        ("gradient_norm", "log_prob"),
        _convinced,
        "share of samples whose gradient is small because the guide is certain of the target",
        "above",
        0.5,
        "the gradient has not vanished, the guide is content: guide in an interval of timesteps that ends there "
        "(guidance.interval), as normalize l2 goes on with full strength",
        is_share=True,
        testable=_no_leverage,
        towards=True,
    ),
    CurveSignature(
        "sparse",
        "warning",
        ("zero_fraction", "gradient_norm"),
        _zeros,
        "share of zeros in the gradient, with no clamp to blame,",
        "above",
        threshold("sparse"),
        "a few pixels alone decide the guide: look at the gradient; does the guide pool by maxima, sample pixels, or "
        "pass a mask?",
        alone=0,
    ),
    CurveSignature(
        "noise_dominated",
        "warning",
        ("gradient_snr",),
        _signal,
        "log10 of the gradient's signal-to-noise ratio over noise draws",
        "below",
        log10(threshold("noise_dominated")),
        "the gradient is about the noise in x_t and not about the image: show the guide x0-hat, or average more draws "
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
