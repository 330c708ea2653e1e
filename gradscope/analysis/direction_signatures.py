"""Signatures of where gradient, update and shift point."""

from collections.abc import Callable

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import Cell
from gradscope.analysis.curve_test import CurveSignature
from gradscope.analysis.findings import Finding, at
from gradscope.analysis.lag import too_far
from gradscope.analysis.means import mean_interval, row_means
from probes.catalogue import threshold

OPPOSED = 0.25
"""Share of the guided steps."""
FOLLOWS = threshold("unrelated_update")
"""Mean cosine of an update that follows its gradient, at a distance."""


def _sided(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    """The cosine as it is where the scale is positive, turned round where it is negative."""
    return lambda cell: cell[name] * np.sign(cell["guidance_scale"])


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
        testable=too_far,
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
        "late gradients undo what early ones did: look at where the curve crosses 0; does the target, the sign or the "
        "guide's input change on the way?",
        sustained=0.1,
    ),
    CurveSignature(
        "misdirected",
        "alarm",
        ("shift_direction_cosine",),
        _sided("shift_direction_cosine"),
        "cosine of the shift with its intended direction, by the scale's sign,",
        "below",
        threshold("misdirected"),
        "the step does not move along the direction that guidance gives it: look at what happens to the guided "
        "prediction afterwards (a second clamp, another order of operations, a turned sign)",
        sustained=0.1,
        alone=0,
    ),
    CurveSignature(
        "misaligned",
        "warning",
        ("reference_cosine",),
        lambda cell: cell["reference_cosine"],
        "cosine with the reference's gradient",
        "below",
        threshold("misaligned"),
        "the guide pulls elsewhere than the reference classifier at the same x_t: are its labels those of the "
        "reference? trust it only where they agree, or guide in that interval of timesteps",
        sustained=0.5,
        alone=0.2,
        alone_threshold=-0.05,
    ),
    CurveSignature(
        "against_prior",
        "warning",
        ("score_cosine",),
        _sided("score_cosine"),
        "cosine of what guidance follows with the unconditional score",
        "below",
        threshold("against_prior"),
        "guidance points against the denoiser's own direction: lower guidance_scale, or guide later",
        sustained=0.75,
    ),
)


def unrelated_update(cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], level: float = 0.95) -> Finding | None:
    """The update's mean cosine with its gradient is below 0 at `OPPOSED` of the guided steps, and low over all of them.

    A stabiliser with memory may lag behind the gradient: ADAM's means are 0.25 to 0.44, and no finding. An update that
    has nothing to do with its gradient has a mean of about 0, so below 0 at about half of the steps. The mean over the
    guided steps is shown to be below `FOLLOWS`, at the level.
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
        **at(where),
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
            f"all guided steps, and its mean over samples below 0 at {opposed.sum()} of {defined.sum()}"
        ),
        advice="the update does not follow its gradient: look at the stabiliser's sign and state; is its memory longer "
        "than the gradient keeps its direction, or shared by samples?",
    )
