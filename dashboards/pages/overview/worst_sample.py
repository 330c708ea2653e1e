"""The worst sample of a finding: the sample and the timestep whose tensors show it best."""

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import place
from gradscope.analysis.findings import Finding
from gradscope.analysis.guidance import has_belief_factor
from gradscope.analysis.means import row_means
from gradscope.analysis.signatures import CURVES
from gradscope.analysis.verdicts import class_names


class Position(NamedTuple):
    """A position in a cell."""

    timestep: int
    sample: int
    """Index of the sample."""


def worst_sample(ds: xr.Dataset, finding: Finding, elements: int) -> Position:
    """Find the sample that shows a finding worst, and the timestep where it begins.

    For a signature over timesteps it is the sample with the most extreme statistic over the finding's timesteps, at the
    first of them with a gradient that is not zero. For gradients that are not finite it is the sample with most of
    them. For an outcome it is the sample whose guide is most certain where the judge is wrong, at the last timestep.
    Samples with tensors come first.

    Parameters
    ----------
    ds
        The store's diagnostics and verdicts, in memory.
    elements
        Elements of one gradient.
    """
    cell = ds.isel(place(ds, finding.cell)).assign_attrs(elements=elements, has_belief_factor=has_belief_factor(ds))
    extent = _extent(cell, finding).transpose("sample", "timestep").values.astype(np.float64)
    has_tensor = (cell["written"] >= 3).transpose("sample", "timestep").values
    timestep = cell["timestep"].values
    within = _within(timestep, finding)
    worst = row_means(extent[:, within])
    if finding.target_class:
        worst[cell["label"].values != class_names(ds).index(finding.target_class)] = np.nan
    known, kept = np.isfinite(worst), has_tensor[:, within].any(axis=1)
    rows = next((np.flatnonzero(some) for some in (known & kept, kept, known) if some.any()), np.arange(1))
    sample = int(rows[np.nan_to_num(worst[rows], nan=-np.inf).argmax()])
    if finding.signature == "non_finite":
        within = within & (extent[sample] > 0)
    seen = within & has_tensor[sample]
    if "gradient_norm" in cell:  # a map of zeros shows nothing
        visible = seen & (cell["gradient_norm"].transpose("sample", "timestep").values[sample] > 0)
        seen = visible if visible.any() else seen
    steps = np.flatnonzero(seen if seen.any() else within)
    return Position(int(timestep[steps[0 if finding.first_timestep is not None else -1]]), sample)


def _extent(cell: xr.Dataset, finding: Finding) -> xr.DataArray:
    """How strongly each sample shows the finding at each timestep; NaN where it is unknown."""
    for curve in CURVES:
        if curve.name == finding.signature:
            return curve.statistic(cell) * (-1.0 if curve.side == "below" else 1.0)
    if finding.signature == "non_finite":
        return (cell["finite_fraction"] < 1).astype(float)
    if finding.signature == "unrelated_update":
        return -cell["update_gradient_cosine"]
    certain = cell["log_prob"] if "log_prob" in cell else xr.zeros_like(cell["written"], dtype=float)
    return certain.where((cell["judge_prediction"] >= 0) & (cell["judge_prediction"] != cell["label"]))


def _within(timestep: NDArray, finding: Finding) -> NDArray[np.bool_]:
    if finding.first_timestep is None or finding.last_timestep is None:
        return np.ones(len(timestep), dtype=bool)
    return (timestep <= finding.first_timestep) & (timestep >= finding.last_timestep)
