"""The sample and the timestep that show a finding: its statistic is clear there, and the gradient of ordinary size."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dashboards.data.open_run import OpenRun
from gradscope.analysis.cells import place
from gradscope.analysis.findings import Finding
from gradscope.analysis.guidance import has_belief_factor
from gradscope.analysis.signatures import CURVES
from gradscope.analysis.verdicts import class_names

NEAR = 3.0
"""A gradient norm within this factor of the median is of ordinary size."""
_CURVES = {curve.name: curve for curve in CURVES}
Flags = NDArray[np.bool_]
Floats = NDArray[np.float64]


class Shown(NamedTuple):
    """A position in a cell, and how it was chosen."""

    timestep: int
    sample: int
    """Index of the sample."""
    why: str
    """How it was chosen, in words."""

    @property
    def place(self) -> str:
        """The position in words."""
        return f"sample {self.sample} at t = {self.timestep}"


def needed(run: OpenRun) -> xr.Dataset:
    """The diagnostics that `shown_sample` reads."""
    names = {"finite_fraction", "log_prob", "margin", "gradient_norm", "update_gradient_cosine"}
    names = names.union(*(curve.needs for curve in CURVES))
    return run.scalars("written", *sorted(names & set(run.ds)))


def shown_sample(ds: xr.Dataset, finding: Finding, elements: int) -> Shown:
    """Choose the sample and the timestep at which a finding is shown.

    The candidates are all samples of the finding's class at its timesteps. In this order, they are reduced to those
    with tensors, with a finite statistic, with a statistic beyond the finding's threshold, and with a gradient norm
    within `NEAR` of the cell's median. A condition that none fulfils is left out; in place of the last one, the nearest
    norm is taken. The most extreme statistic decides, then the earliest step, then the lowest sample.

    Where the statistic is the norm itself, the median is that of the finding's timesteps. The statistic of an outcome
    is the log-probability that the guide gives to the target of a sample that the judge gets wrong (of a collapsed
    cell: right). Gradients that are not finite have no norm: their first one is shown.

    Parameters
    ----------
    ds
        The store's diagnostics and verdicts, in memory.
    elements
        Elements of one gradient.
    """
    cell = ds.isel(place(ds, finding.cell)).assign_attrs(elements=elements, has_belief_factor=has_belief_factor(ds))
    extent = _values(_extent(cell, finding))
    within = np.broadcast_to(_within(cell["timestep"].values, finding), extent.shape)
    if finding.target_class:
        within = within & (cell["label"].values == class_names(ds).index(finding.target_class))[:, None]
    kept = _reduced(within, _values(cell["written"]) >= 3)
    kept = _reduced(kept, np.isfinite(extent))
    kept = _reduced(kept, extent > _bar(finding))
    size = ""
    if "gradient_norm" in cell and finding.signature != "non_finite":
        kept, size = _of_ordinary_size(kept, _values(cell["gradient_norm"]), finding, within)
    best = kept & (extent == extent[kept].max()) if np.isfinite(extent[kept]).all() else kept
    step, sample = (int(places[0]) for places in np.nonzero(best.T))
    why = _reason(finding, extent, int(kept.sum()), (sample, step))
    if size:
        why += size.format(_values(cell["gradient_norm"])[sample, step])
    return Shown(int(cell["timestep"].values[step]), sample, why)


def _values(variable: xr.DataArray) -> Floats:
    return variable.transpose("sample", "timestep").values.astype(np.float64)


def _extent(cell: xr.Dataset, finding: Finding) -> xr.DataArray:
    """How strongly each sample shows the finding at each timestep; NaN where it is unknown."""
    if curve := _CURVES.get(finding.signature):
        return curve.statistic(cell) * (-1.0 if curve.side == "below" else 1.0)
    if finding.signature == "non_finite":
        return (cell["finite_fraction"] < 1).astype(float)
    if finding.signature == "unrelated_update":
        return -cell["update_gradient_cosine"]
    certain = cell["log_prob"] if "log_prob" in cell else xr.zeros_like(cell["written"], dtype=float)
    if "judge_prediction" not in cell:
        return certain
    right = cell["judge_prediction"] == cell["label"]
    return certain.where((cell["judge_prediction"] >= 0) & (right if finding.signature == "collapsed" else ~right))


def _bar(finding: Finding) -> float:
    """The extent beyond which a single position shows the finding; -inf where it has no threshold of its own."""
    curve = _CURVES.get(finding.signature)
    if curve is None:
        thresholds = {"non_finite": 0.0, "unrelated_update": -finding.threshold}
        return thresholds.get(finding.signature, -np.inf)
    return -finding.threshold if curve.side == "below" else finding.threshold


def _within(timestep: NDArray, finding: Finding) -> Flags:
    if finding.first_timestep is None or finding.last_timestep is None:
        return np.ones(len(timestep), dtype=bool)
    return (timestep <= finding.first_timestep) & (timestep >= finding.last_timestep)


def _reduced(kept: Flags, wanted: Flags) -> Flags:
    """Those that fulfil a condition; all where none does."""
    both = kept & wanted
    return both if both.any() else kept


def _of_ordinary_size(kept: Flags, norm: Floats, finding: Finding, within: Flags) -> tuple[Flags, str]:
    """Those with a norm near the median, and words on it with ``{}`` in place of the norm that is shown."""
    curve = _CURVES.get(finding.signature)
    is_norm = curve is not None and "gradient_norm" in curve.needs
    known = np.isfinite(norm) & (norm > 0)
    ordinary = norm[known & within] if is_norm else norm[known]
    if not (kept & known).any() or not ordinary.size:
        return kept, "; its gradient norm is {:.3g}"
    middle = float(np.median(ordinary))
    apart = np.full(norm.shape, np.inf)
    apart[kept & known] = np.abs(np.log(norm[kept & known] / middle))
    whose = "median of the finding's timesteps" if is_norm else "cell's median"
    near = apart <= np.log(NEAR)
    if near.any():
        return near, f"; its gradient norm, {{:.3g}}, is within a factor of {NEAR:g} of the {whose}, {middle:.3g}"
    return apart == apart.min(), f"; its gradient norm, {{:.3g}}, is the nearest to the {whose}, {middle:.3g}"


def _reason(finding: Finding, extent: Floats, count: int, at: tuple[int, int]) -> str:
    among = f"among {count} candidates" if count > 1 else "the only candidate"
    curve = _CURVES.get(finding.signature)
    if finding.signature == "non_finite":
        return "the first gradient that is not finite"
    if not np.isfinite(extent[at]) or (curve is not None and curve.is_share):
        return f"the first {among}" if count > 1 else among
    if curve is None and finding.signature != "unrelated_update":
        verdict = "agrees" if finding.signature == "collapsed" else "disagrees"
        return f"the guide is most certain of the target, and the judge {verdict}, {among}"
    side = "above" if curve is not None and curve.side == "above" else "below"
    most, sign = ("highest", 1) if side == "above" else ("lowest", -1)
    return f"the {most} statistic, {sign * extent[at]:.3g} (threshold: {side} {finding.threshold:.3g}), {among}"
