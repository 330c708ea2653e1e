"""Failure signatures: what fails in a recorded run, where, how sure one can be, and what to try.

A signature is a named test with a threshold, an effect and a 95 % interval. Those over timesteps are in
`gradscope.analysis.curve_signatures`, those of the outcome in `gradscope.analysis.outcome_signatures`.
"""

import json
from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import Cell, absent, cells, class_names, place
from gradscope.analysis.curve_signatures import CURVES
from gradscope.analysis.findings import Finding, ranked, table
from gradscope.analysis.outcome_signatures import adversarial, ineffective, non_finite, over_regularised
from gradscope.analysis.subsets import whole

OUTCOMES = {
    "non_finite": ("finite_fraction",),
    "ineffective": ("judge_prediction",),
    "adversarial": ("judge_prediction",),
    "over_regularised": ("judge_prediction",),
}
"""Variables that each signature of the outcome needs."""
_UNSTABILISED = "none"


def signatures(ds: xr.Dataset) -> pd.DataFrame:
    """What fails, ranked by severity: one row a finding.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, whole or partly written. Cells without guidance (scale 0) are controls:
        only their non-finite gradients are reported.

    Returns
    -------
    pandas.DataFrame
        Columns are the fields of `gradscope.analysis.findings.Finding`. Signatures whose variables were not recorded
        are left out, see `untested`.
    """
    return table(find(ds))


def find(ds: xr.Dataset) -> list[Finding]:
    """The findings behind `signatures`, most severe first."""
    ds = whole(ds)
    guided = _guided(ds)
    found: list[Finding] = []
    pairs = []
    for where in cells(ds):
        cell = _cell(ds, where)
        if not (cell["written"] > 0).any():
            continue
        if "finite_fraction" in cell:
            found += _some(non_finite(cell, where))
        if where["guidance_scale"] == 0:
            continue
        for curve in CURVES:
            if all(name in cell for name in curve.needs):
                found += _some(curve.look(cell, where, guided))
        if "judge_prediction" not in cell:
            continue
        found += _some(ineffective(cell, where))
        control = _cell(ds, {**where, "guidance_scale": 0.0}) if 0 in ds["guidance_scale"].values else None
        found += _some(adversarial(cell, where, guided, control))
        if where["stabilizer"] != _UNSTABILISED and _UNSTABILISED in ds["stabilizer"].values:
            pairs.append((cell, _cell(ds, {**where, "stabilizer": _UNSTABILISED}), where))
    return ranked(found + over_regularised(pairs))


def untested(ds: xr.Dataset) -> dict[str, str]:
    """Signatures that could not be tested on this store, and what would make it possible."""
    needs = {curve.name: curve.needs for curve in CURVES} | OUTCOMES
    reasons = {name: "; ".join(filter(None, (absent(ds, v) for v in variables))) for name, variables in needs.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _guided(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Timesteps at which the configuration lets guidance act."""
    settings = json.loads(ds.attrs.get("configuration", "{}"))
    interval = settings.get("guidance", settings).get("interval")
    timestep = ds["timestep"].values
    if interval is None:
        return np.ones(len(timestep), dtype=bool)
    return (interval[0] <= timestep) & (timestep < interval[1])


def _cell(ds: xr.Dataset, where: Cell) -> xr.Dataset:
    """One cell in memory: its scalars, verdicts and distances, without tensors and images."""
    small = [name for name, v in ds.data_vars.items() if not {"channel", "layer", "radial_frequency"} & set(v.dims)]
    cell = ds[small].isel(place(ds, where)).compute()
    cell.attrs["classes"] = class_names(ds)
    cell.attrs["elements"] = int(np.prod([ds.sizes[dim] for dim in ("channel", "height", "width")]))
    return cell


def _some(finding: Finding | None) -> Iterator[Finding]:
    if finding is not None:
        yield finding
