"""Signatures over timesteps: a statistic of every sample that stays beyond a threshold for a part of the trajectory.

At each guided timestep the mean over samples gets a bootstrap interval; a timestep counts where the whole interval lies
beyond the threshold. The longest run of such timesteps is a finding if it is at least `sustained` of those at which the
statistic is defined for half of the samples or more. The effect is the mean over the run; its interval is a bootstrap
over samples.

The thresholds are calibrated on runs that work and on trajectories with known faults; `runs/calibration.py` measures
how often a fault is missed and a healthy run is blamed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, log, log10
from typing import Literal

import numpy as np
import xarray as xr

from gradscope.analysis.contents import Cell
from gradscope.analysis.findings import Finding, Severity
from gradscope.analysis.statistics import bootstrap_mean

LEVERAGE = 0.01
"""Nats; a gradient of less leverage cannot move the belief within a step's noise."""


@dataclass(frozen=True)
class CurveSignature:
    """A named test of one statistic over timesteps."""

    name: str
    severity: Severity
    needs: tuple[str, ...]
    """Variables of the store."""
    statistic: Callable[[xr.Dataset], xr.DataArray]
    """Of one cell: values over ``(sample, timestep)``, NaN where it is undefined."""
    label: str
    """What the statistic is."""
    side: Literal["below", "above"]
    threshold: float
    advice: str
    sustained: float = 0.25
    """Share of the defined timesteps that a run must cover."""

    def look(self, cell: xr.Dataset, where: Cell, guided: np.ndarray) -> Finding | None:
        """Look at one cell; `guided` marks the timesteps at which guidance acts, ``(timesteps,)``."""
        values = self.statistic(cell).transpose("sample", "timestep").values.astype(np.float64)
        found = bootstrap_mean(values)
        defined = np.flatnonzero((found.n >= max(2, len(values) / 2)) & guided)
        beyond = found.high < self.threshold if self.side == "below" else found.low > self.threshold
        run = defined[longest_run(beyond[defined])]
        if len(run) < max(2, ceil(self.sustained * len(defined))):
            return None
        finite = np.isfinite(values[:, run])
        counts = finite.sum(axis=1)
        mean = np.where(finite, values[:, run], 0).sum(axis=1)[counts > 0] / counts[counts > 0]
        effect = bootstrap_mean(mean)
        affected = mean < self.threshold if self.side == "below" else mean > self.threshold
        timestep = cell["timestep"].values
        first, last = int(timestep[run[0]]), int(timestep[run[-1]])
        return Finding(
            signature=self.name,
            severity=self.severity,
            **where,
            first_timestep=first,
            last_timestep=last,
            affected=int(affected.sum()),
            samples=len(mean),
            effect=float(effect.mean),
            low=float(effect.low),
            high=float(effect.high),
            threshold=self.threshold,
            evidence=(
                f"{self.label} is {effect.mean:.3g} [{effect.low:.3g}, {effect.high:.3g}] from timestep {first} to "
                f"{last}, {len(run)} of {len(defined)} steps, {self.side} {self.threshold:g}"
            ),
            advice=self.advice,
        )


def longest_run(flags: np.ndarray) -> slice:
    """The longest run of true values, the first of them where several are as long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return slice(0, 0)
    longest = int(np.argmax(ends - starts))
    return slice(int(starts[longest]), int(ends[longest]))


def leverage(cell: xr.Dataset) -> xr.DataArray:
    """Nats by which a displacement along the gradient, as long as the step's own noise, changes the objective.

    gradient_norm * sigma_t * sqrt(d); NaN where sigma_t is 0.
    """
    return cell["gradient_norm"] * cell["sigma"].where(cell["sigma"] > 0) * cell.attrs["elements"] ** 0.5


def _vanishing(cell: xr.Dataset) -> xr.DataArray:
    force = leverage(cell)
    return ((force < LEVERAGE) & (cell["log_prob"] < log(0.9))).where(np.isfinite(force))


def _saturated(cell: xr.Dataset) -> xr.DataArray:
    force = leverage(cell)
    idle = (force < LEVERAGE) & (cell["log_prob"] > log(0.95))
    return idle.where(np.isfinite(force) & (cell["alphas_cumprod"] < 0.02))


def _growth(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the norm over the trajectory's median norm in the first quarter."""
    norm = cell["gradient_norm"].where(cell["gradient_norm"] > 0)
    first = norm.isel(timestep=slice(0, max(2, cell.sizes["timestep"] // 4))).median("timestep")
    return xr.ufuncs.log10(norm / first)


def _signal(cell: xr.Dataset) -> xr.DataArray:
    """log10 of the signal-to-noise ratio, which is skewed; NaN where all draws agree."""
    return xr.ufuncs.log10(cell["gradient_snr"].where(np.isfinite(cell["gradient_snr"])))


def _dead(cell: xr.Dataset) -> xr.DataArray:
    if str(cell["classifier_input"].values) == "x_t":
        return xr.full_like(cell["clipped_fraction"], np.nan)
    return xr.ufuncs.maximum(cell["clipped_fraction"], cell["zero_fraction"])


def _variable(name: str) -> Callable[[xr.Dataset], xr.DataArray]:
    return lambda cell: cell[name]


CURVES = (
    CurveSignature(
        "unstable",
        "alarm",
        ("gradient_cosine",),
        _variable("gradient_cosine"),
        "cosine of successive gradients",
        "below",
        0.4,
        "successive gradients hardly agree: show the guide x0-hat (classifier_input x0), or use a classifier trained "
        "on x_t; a stabiliser averages the noise but adds no signal",
    ),
    CurveSignature(
        "frozen",
        "warning",
        ("gradient_cosine",),
        _variable("gradient_cosine"),
        "cosine of successive gradients",
        "above",
        0.9999,
        "the gradient does not react to the sample: is the classifier's input detached, constant or saturated?",
        sustained=0.5,
    ),
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
    ),
    CurveSignature(
        "exploding",
        "alarm",
        ("gradient_norm",),
        _growth,
        "log10 growth of the gradient norm against the first quarter",
        "above",
        3.0,
        "gradients grow by orders of magnitude: normalise (guidance.normalize l2) or clip them (stabiliser clipping)",
        sustained=0.05,
    ),
    CurveSignature(
        "inert",
        "warning",
        ("effective_strength",),
        _variable("effective_strength"),
        "shift relative to the step's noise",
        "below",
        1e-3,
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
        1.0,
        "guidance moves further than the step's own noise: lower guidance_scale, weigh it by sigma, or guide in an "
        "interval of timesteps only",
        sustained=0.1,
    ),
    CurveSignature(
        "dead_by_clipping",
        "alarm",
        ("clipped_fraction", "zero_fraction"),
        _dead,
        "share of elements without a gradient through the clamp of x0-hat",
        "above",
        0.9,
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
    ),
    CurveSignature(
        "misaligned",
        "warning",
        ("reference_cosine",),
        _variable("reference_cosine"),
        "cosine with the reference's gradient",
        "below",
        0.05,
        "the guide pulls elsewhere than the reference classifier at the same x_t: trust it only where they agree, or "
        "guide in that interval of timesteps",
        sustained=0.5,
    ),
    CurveSignature(
        "noise_dominated",
        "warning",
        ("gradient_snr",),
        _signal,
        "log10 of the gradient's signal-to-noise ratio over noise draws",
        "below",
        log10(2),
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
        0.5,
        "the gradient is texture, as in adversarial examples: use a robust classifier, or show it x0-hat",
    ),
    CurveSignature(
        "against_prior",
        "warning",
        ("score_cosine",),
        _variable("score_cosine"),
        "cosine with the unconditional score",
        "below",
        -0.2,
        "the gradient points against the denoiser's own direction: lower guidance_scale, or guide later",
        sustained=0.75,
    ),
)
