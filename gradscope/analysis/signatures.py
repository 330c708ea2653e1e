"""Failure signatures: what fails in a recorded run, where, how sure one can be, and what to try.

A signature is a named test with a threshold, an effect and a 95 % interval. Those over timesteps are in
`gradscope.analysis.curve_signatures` and `direction_signatures`, those of the outcome in `outcome_signatures`, and
those of a cell against another in `pair_signatures`.
"""

from collections.abc import Iterable, Iterator, Set

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import Cell, absent, cells, class_names, factored, guidance, place
from gradscope.analysis.curve_signatures import CURVES
from gradscope.analysis.curve_test import level
from gradscope.analysis.direction_signatures import unrelated_update
from gradscope.analysis.findings import Finding, ranked, table
from gradscope.analysis.outcome_signatures import (
    adversarial,
    class_failure,
    collapsed,
    ineffective,
    non_finite,
    undone,
)
from gradscope.analysis.pair_signatures import over_regularised
from gradscope.analysis.subsets import whole
from gradscope.store.dims import over, sample_dims

OTHERS = {
    "non_finite": ("finite_fraction",),
    "unrelated_update": ("update_gradient_cosine",),
    "ineffective": ("judge_prediction",),
    "class_failure": ("judge_prediction",),
    "collapsed": ("judge_prediction", "coverage", "coverage_interval", "coverage_floor"),
    "adversarial": ("judge_prediction", "own_prediction"),
    "undone": ("own_prediction", "predicted_class"),
    "over_regularised": ("judge_prediction",),
}
"""Variables that each signature besides `CURVES` needs."""
_NAMES = (*(curve.name for curve in CURVES), *OTHERS)
_UNSTABILISED = "none"


def signatures(ds: xr.Dataset) -> pd.DataFrame:
    """What fails, ranked by severity: one row a finding.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, whole or partly written. Cells without guidance (scale 0) are controls:
        only their non-finite gradients are reported. Cells that steer away (negative scales) are not expected to reach
        the target class.

    Returns
    -------
    pandas.DataFrame
        Columns are the fields of `gradscope.analysis.findings.Finding`. Signatures that could not be tested are left
        out, see `untested`. The chance that a store without a fault has any alarm or warning is 5 % at most
        (Bonferroni, over guided cells and tested signatures), so a store of more cells asks for stronger evidence.
        What single samples show, and gradients that are not finite, is counted and not tested.

    Examples
    --------
    >>> found = gradscope.signatures(ds)
    >>> found[found.signature == "unstable"].classifier.unique().tolist()
    ['non_robust']
    """
    return table(find(ds))


def find(ds: xr.Dataset) -> list[Finding]:
    """The findings behind `signatures`, most severe first."""
    ds = whole(ds)
    guided, untestable = _guided(ds), untested(ds)
    tested = {name for name in _NAMES if name not in untestable}
    sure = level(tests(ds))
    found: list[Finding] = []
    pairs = []
    for where in cells(ds):
        cell = _cell(ds, where)
        if not (cell["written"] > 0).any():
            continue
        if "non_finite" in tested:
            found += _some(non_finite(cell, where))
        if where["guidance_scale"] == 0:
            continue
        found += _on_the_way(cell, where, guided, tested, sure)
        if where["guidance_scale"] < 0:
            continue  # away from the target class: to miss it is no fault
        control = _cell(ds, {**where, "guidance_scale": 0.0}) if 0 in ds["guidance_scale"].values else None
        found += _at_the_end(cell, control, where, guided, tested, sure)
        if "over_regularised" in tested and where["stabilizer"] != _UNSTABILISED:
            pairs.append((cell, _cell(ds, {**where, "stabilizer": _UNSTABILISED}), where))
    return ranked(found + over_regularised(pairs))


def tests(ds: xr.Dataset) -> int:
    """Number of tests: signatures that can be tested, times guided cells."""
    ds = whole(ds)
    guided = sum(where["guidance_scale"] != 0 for where in cells(ds))
    return guided * (len(_NAMES) - len(untested(ds)))


def _on_the_way(
    cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], tested: Set[str], sure: float
) -> Iterator[Finding]:
    """What is seen over the timesteps of one cell, in the samples that are begun."""
    cell = cell.isel(sample=np.flatnonzero((cell["written"] > 0).any("timestep")))
    for curve in CURVES:
        if curve.name in tested and not (curve.towards and where["guidance_scale"] < 0):
            yield from curve.look(cell, where, guided, sure)
    if "unrelated_update" in tested:
        yield from _some(unrelated_update(cell, where, guided, sure))


def _at_the_end(
    cell: xr.Dataset,
    control: xr.Dataset | None,
    where: Cell,
    guided: NDArray[np.bool_],
    tested: Set[str],
    sure: float,
) -> Iterator[Finding]:
    """What is seen in the final samples of one cell; `control` is the same cell without guidance."""
    if "ineffective" in tested:
        yield from _some(ineffective(cell, where, control, sure))
    if "class_failure" in tested:
        yield from class_failure(cell, where, sure)
    if "collapsed" in tested:
        yield from _some(collapsed(cell, where, sure))
    if "adversarial" in tested:
        yield from _some(adversarial(cell, where, sure))
    if "undone" in tested:
        yield from _some(undone(cell, where, guided, sure))


def untested(ds: xr.Dataset) -> dict[str, str]:
    """Signatures that could not be tested on this store, and what would make it possible."""
    ds = whole(ds)
    few = _too_few(ds)
    reasons = {curve.name: _absent(ds, curve.needs) or curve.testable(ds) or few for curve in CURVES}
    reasons |= {name: _absent(ds, variables) for name, variables in OTHERS.items()}
    reasons["unrelated_update"] = reasons["unrelated_update"] or few
    if _UNSTABILISED not in ds["stabilizer"].values or ds.sizes["stabilizer"] < 2:
        alone = f"it compares stabilisers with `{_UNSTABILISED}`, and this store has no two cells to compare"
        reasons["over_regularised"] = reasons["over_regularised"] or alone
    return {name: reason for name, reason in reasons.items() if reason}


def _too_few(ds: xr.Dataset) -> str:
    """Why no mean over samples that lasts for some timesteps can be looked at; empty where it can."""
    if ds.sizes["sample"] < 2:
        return "a mean and its interval need two samples, and there is one"
    if (steps := int(_guided(ds).sum())) < 2:
        return f"two guided timesteps are needed, and there {'is one' if steps else 'are none'}"
    return ""


def _absent(ds: xr.Dataset, variables: Iterable[str]) -> str:
    return "; ".join(filter(None, (absent(ds, name) for name in variables)))


def _guided(ds: xr.Dataset) -> NDArray[np.bool_]:
    """Timesteps at which the configuration lets guidance act."""
    interval = guidance(ds).get("interval")
    timestep = ds["timestep"].values
    if interval is None:
        return np.ones(len(timestep), dtype=bool)
    return np.asarray((interval[0] <= timestep) & (timestep < interval[1]))


def _cell(ds: xr.Dataset, where: Cell) -> xr.Dataset:
    """One cell in memory: its scalars, verdicts and distances, without tensors and images."""
    along = {*over(ds), "class", "bound", "replicate"}
    small = [name for name, v in ds.data_vars.items() if set(v.dims) <= along]
    cell = ds[small].isel(place(ds, where)).compute()
    cell.attrs["classes"] = class_names(ds)
    cell.attrs["factored"] = factored(ds)
    cell.attrs["elements"] = int(np.prod([ds.sizes.get(dim, 1) for dim in sample_dims(ds)]))
    return cell


def _some(finding: Finding | None) -> Iterator[Finding]:
    if finding is not None:
        yield finding
