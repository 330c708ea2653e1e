"""Signatures of the directions of gradient, update and shift."""

import json
from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell
from gradscope.analysis.curve_signature import CurveSignature
from gradscope.analysis.findings import Finding, cell_fields
from gradscope.analysis.means import mean_interval, row_means
from probes.catalogue import LAG_PARTS, threshold

OPPOSED = 0.25
"""The update is unrelated if it points against its gradient at this share of the guided steps or more."""
FOLLOWS = threshold("unrelated_update")
"""An update whose mean cosine with its gradient is higher follows the gradient, with a lag."""
_WIDEST_PARTS = 1.5
"""Largest distance of compared gradients, in parts of diffusion time. Beyond it, healthy gradients differ as much as
faulty ones."""


def _times_sign_of_scale(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    """The cosine, with its sign reversed where the guidance scale is negative."""
    return lambda cell: cell[name] * np.sign(cell["guidance_scale"])


def _too_far_apart(ds: xr.Dataset) -> str:
    """Why the gradients that `gradient_lag_cosine` compares are too far apart; empty if they are near enough."""
    timestep = np.sort(ds["timestep"].values)[::-1]
    scheduler = json.loads(ds.attrs.get("scheduler", "{}"))
    total = scheduler.get("num_train_timesteps", int(timestep.max(initial=0)) + 1)
    if timestep.min(initial=0) < 0:  # EDM's are logarithms of noise, so its steps divide the time evenly
        timestep = total * (1 - (np.arange(len(timestep)) + 1) / len(timestep))
    compared = timestep[np.flatnonzero(np.diff(timestep * LAG_PARTS // total, prepend=-1))]
    if len(compared) < 2:
        return "the store has one timestep, so there is no second gradient to compare with"
    apart, widest = float(np.median(-np.diff(compared))), _WIDEST_PARTS * total / LAG_PARTS
    if apart <= widest:
        return ""
    return (
        f"gradients are {apart:.0f} timesteps apart and can be compared up to {widest:.0f}: record with more steps "
        f"(num_inference_steps from {int(np.ceil(total / widest))})"
    )


DIRECTIONS = (
    CurveSignature(
        "unstable",
        "alarm",
        ("gradient_lag_cosine",),
        lambda cell: cell["gradient_lag_cosine"],
        "cosine of gradients about 1/28 of diffusion time apart",
        "below",
        threshold("unstable"),
        "gradients hardly agree from one part of the run to the next: show the guide x0-hat (classifier_input x0), or "
        "use a classifier trained on x_t; a stabiliser averages the noise but adds no signal",
        untestable=_too_far_apart,
    ),
    CurveSignature(
        "frozen",
        "warning",
        ("gradient_lag_cosine",),
        lambda cell: cell["gradient_lag_cosine"],
        "cosine of gradients about 1/28 of diffusion time apart",
        "above",
        threshold("frozen"),
        "the gradient does not react to the sample: is the classifier's input detached, constant or saturated?",
        sustained=0.5,
    ),
    CurveSignature(
        "reversing",
        "warning",
        ("gradient_first_cosine",),
        lambda cell: cell["gradient_first_cosine"],
        "cosine with the sample's first gradient",
        "below",
        threshold("reversing"),
        "late gradients undo the work of early ones: look where the curve crosses 0; does the target, the sign or the "
        "guide's input change there?",
        sustained=0.1,
    ),
    CurveSignature(
        "misdirected",
        "alarm",
        ("shift_direction_cosine",),
        _times_sign_of_scale("shift_direction_cosine"),
        "cosine of the shift with its intended direction, times the scale's sign,",
        "below",
        threshold("misdirected"),
        "the step does not move along the direction that guidance gives it: check how the guided prediction is changed "
        "afterwards (a second clamp, another order of operations, a reversed sign)",
        sustained=0.1,
        single_samples=0,
    ),
    CurveSignature(
        "misaligned",
        "warning",
        ("reference_cosine",),
        lambda cell: cell["reference_cosine"],
        "cosine with the reference's gradient",
        "below",
        threshold("misaligned"),
        "the guide pulls in another direction than the reference classifier at the same x_t: do both number the "
        "classes alike? guide only in the interval of timesteps where they agree",
        sustained=0.5,
        single_samples=0.2,
        single_threshold=-0.05,
    ),
    CurveSignature(
        "against_prior",
        "warning",
        ("score_cosine",),
        _times_sign_of_scale("score_cosine"),
        "cosine of the gradient, times the scale's sign, with the unconditional score",
        "below",
        threshold("against_prior"),
        "guidance points against the denoiser's own direction: lower guidance_scale, or guide later",
        sustained=0.75,
    ),
)


def unrelated_update(cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> Finding | None:
    """The update points against its gradient too often, and hardly follows it on average.

    Its mean cosine with the gradient is below 0 at `OPPOSED` of the guided steps or more, and the mean over all guided
    steps is below `FOLLOWS` at the level. A stabiliser with memory may lag behind the gradient: ADAM's means are 0.25
    to 0.44 and give no finding. An update unrelated to its gradient has a mean of about 0, so it is below 0 at about
    half of the steps.
    """
    values = cell["update_gradient_cosine"].transpose("sample", "timestep").values.astype(np.float64)[:, guided]
    means = mean_interval(values)
    defined = means.n >= max(2, len(values) / 2)
    opposed = defined & (np.where(defined, means.mean, 0) < 0)
    if not defined.any() or opposed.sum() < OPPOSED * defined.sum():
        return None
    own = row_means(values)
    own = own[np.isfinite(own)]
    if not mean_interval(own, level=level).high < FOLLOWS:
        return None
    effect = mean_interval(own)
    timestep = cell["timestep"].values[guided][defined]
    return Finding(
        signature="unrelated_update",
        severity="warning",
        **cell_fields(where),
        first_timestep=timestep[0].item(),
        last_timestep=timestep[-1].item(),
        affected=int((own < FOLLOWS).sum()),
        samples=len(own),
        effect=float(effect.mean),
        low=float(effect.low),
        high=float(effect.high),
        threshold=FOLLOWS,
        evidence=(
            f"the update's cosine with its gradient is {effect.mean:.3g} [{effect.low:.3g}, {effect.high:.3g}] over "
            f"all guided steps, and its mean over samples is below 0 at {opposed.sum()} of {defined.sum()}"
        ),
        advice="the update does not follow its gradient: check the stabiliser's sign and state; does its memory last "
        "longer than the gradient keeps its direction, or do samples share it?",
    )
