"""Failure signatures: what fails in a recorded run, where, how certain it is, and what to try.

A signature is a named test with a threshold, an effect and a 95 % interval. Those over timesteps are in
`gradscope.analysis.direction_signatures` and `magnitude_signatures`, those of the outcome in `outcome_signatures`, and
those that compare two cells in `pair_signatures`.
"""

from collections.abc import Iterable, Iterator, Set

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.direction_signatures import DIRECTIONS, unrelated_update
from gradscope.analysis.false_alarms import level_per_test
from gradscope.analysis.findings import Finding, findings_table, ranked
from gradscope.analysis.guidance import guided_timesteps, has_belief_factor
from gradscope.analysis.magnitude_signatures import MAGNITUDES
from gradscope.analysis.missing import absent
from gradscope.analysis.outcome_signatures import (
    adversarial,
    class_failure,
    collapsed,
    ineffective,
    non_finite,
    undone,
)
from gradscope.analysis.pair_signatures import over_regularised
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.verdicts import class_names
from gradscope.analysis.watched import in_its_terms, not_at_x_t
from gradscope.store.dims import over, sample_dims

CURVES = (*DIRECTIONS, *MAGNITUDES)
"""Every signature that tests a curve over timesteps against a threshold."""
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
"""Every other signature, with the variables that it needs."""
_NAMES = (*(curve.name for curve in CURVES), *OTHERS)
_UNSTABILISED = "none"


def signatures(ds: xr.Dataset) -> pd.DataFrame:
    """What fails, most severe first: one row per finding.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, whole or partly written. Cells without guidance (scale 0) are controls:
        only their non-finite gradients are reported. Cells with negative scales steer away from the target class, so
        they need not reach it.

    Returns
    -------
    pandas.DataFrame
        The columns are the fields of `gradscope.analysis.findings.Finding`. Signatures that could not be tested are
        left out, see `untested`. A store without a fault has an alarm or warning with a chance of at most 5 %
        (Bonferroni, over guided cells and tested signatures), so a store with more cells needs stronger evidence.
        Faults of single samples and gradients that are not finite are counted, not tested.

    Examples
    --------
    >>> found = gradscope.signatures(ds)
    >>> found[found.signature == "unstable"].classifier.unique().tolist()
    ['non_robust']
    """
    return findings_table(find(ds))


def find(ds: xr.Dataset) -> list[Finding]:
    """The findings behind `signatures`, most severe first.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> [(found.signature, found.severity) for found in find(synthetic.trajectories("constant"))]
    [('frozen', 'warning')]
    """
    ds = restore_dims(ds)
    guided, untestable = guided_timesteps(ds), untested(ds)
    tested = {name for name in _NAMES if name not in untestable}
    level = level_per_test(number_of_tests(ds))
    found: list[Finding] = []
    pairs = []
    for where in cells(ds):
        cell = _cell(ds, where)
        if not (cell["written"] > 0).any():
            continue
        if "non_finite" in tested:
            found += _if_found(non_finite(cell, where))
        found += _if_found(not_at_x_t(cell, where))
        if where["guidance_scale"] == 0:
            continue
        found += _over_timesteps(cell, where, guided, tested, level)
        if where["guidance_scale"] < 0:
            continue  # steers away from the target class, so missing it is no fault
        control = _cell(ds, {**where, "guidance_scale": 0.0}) if 0 in ds["guidance_scale"].values else None
        found += _in_final_samples(cell, control, where, guided, tested, level)
        if "over_regularised" in tested and where["stabilizer"] != _UNSTABILISED:
            pairs.append((cell, _cell(ds, {**where, "stabilizer": _UNSTABILISED}), where))
    return ranked(in_its_terms(ds, finding) for finding in found + over_regularised(pairs))


def number_of_tests(ds: xr.Dataset) -> int:
    """Number of tests in a store: signatures that can be tested, times guided cells.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories()
    >>> number_of_tests(ds) == len(CURVES) + len(OTHERS) - len(untested(ds))
    True
    """
    ds = restore_dims(ds)
    guided = sum(where["guidance_scale"] != 0 for where in cells(ds) if _is_meant(ds, where))
    return guided * (len(_NAMES) - len(untested(ds)))


def _is_meant(ds: xr.Dataset, where: Cell) -> bool:
    """Whether a cell is one of the run. A watched loop need not visit every combination of its cells' values."""
    return not ds.attrs.get("watched") or bool((_cell(ds[["written"]], where)["written"] > 0).any())


def _over_timesteps(
    cell: xr.Dataset, where: Cell, guided: NDArray[np.bool_], tested: Set[str], level: float
) -> Iterator[Finding]:
    """Findings over the timesteps of one cell, from the samples that have begun."""
    cell = cell.isel(sample=np.flatnonzero((cell["written"] > 0).any("timestep")))
    for curve in CURVES:
        if curve.name in tested and not (curve.only_towards and where["guidance_scale"] < 0):
            yield from curve.look(cell, where, guided, level)
    if "unrelated_update" in tested:
        yield from _if_found(unrelated_update(cell, where, guided, level))


def _in_final_samples(
    cell: xr.Dataset,
    control: xr.Dataset | None,
    where: Cell,
    guided: NDArray[np.bool_],
    tested: Set[str],
    level: float,
) -> Iterator[Finding]:
    """Findings in the final samples of one cell; `control` is the same cell without guidance."""
    if "ineffective" in tested:
        yield from _if_found(ineffective(cell, where, control, level))
    if "class_failure" in tested:
        yield from class_failure(cell, where, level)
    if "collapsed" in tested:
        yield from _if_found(collapsed(cell, where, level))
    if "adversarial" in tested:
        yield from _if_found(adversarial(cell, where, level))
    if "undone" in tested:
        yield from _if_found(undone(cell, where, guided, level))


def untested(ds: xr.Dataset) -> dict[str, str]:
    """Signatures that cannot be tested on this store, and for each what would make it possible.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> untested(synthetic.trajectories().drop_vars("judge_prediction"))["class_failure"]
    'judge_prediction is not in this store; the run has no judge'
    """
    ds = restore_dims(ds)
    few = _too_few(ds)
    reasons = {curve.name: _absent(ds, curve.needs) or curve.untestable(ds) or few for curve in CURVES}
    reasons |= {name: _absent(ds, variables) for name, variables in OTHERS.items()}
    reasons["unrelated_update"] = reasons["unrelated_update"] or few
    if _UNSTABILISED not in ds["stabilizer"].values or ds.sizes["stabilizer"] < 2:
        alone = f"it compares stabilisers with `{_UNSTABILISED}`, and this store has no two such cells"
        reasons["over_regularised"] = reasons["over_regularised"] or alone
    return {name: reason for name, reason in reasons.items() if reason}


def _too_few(ds: xr.Dataset) -> str:
    """Why the store has too few samples or timesteps for any mean over both; empty if it has enough."""
    if ds.sizes["sample"] < 2:
        return "a mean and its interval need two samples, and the store has one"
    if (steps := int(guided_timesteps(ds).sum())) < 2:
        return f"at least two guided timesteps are necessary, and the store has {steps or 'none'}"
    return ""


def _absent(ds: xr.Dataset, variables: Iterable[str]) -> str:
    return "; ".join(filter(None, (absent(ds, name) for name in variables)))


def _cell(ds: xr.Dataset, where: Cell) -> xr.Dataset:
    """One cell in memory: its scalars, verdicts and distances, without tensors and images."""
    along = {*over(ds), "class", "bound", "replicate"}
    small = [name for name, v in ds.data_vars.items() if set(v.dims) <= along]
    cell = ds[small].isel(place(ds, where)).compute()
    cell.attrs["classes"] = class_names(ds)
    cell.attrs["has_belief_factor"] = has_belief_factor(ds)
    cell.attrs["elements"] = int(np.prod([ds.sizes.get(dim, 1) for dim in sample_dims(ds)]))
    return cell


def _if_found(finding: Finding | None) -> Iterator[Finding]:
    if finding is not None:
        yield finding
