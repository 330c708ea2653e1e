"""Compare two cells of a run in every diagnostic, in the judge's accuracy and in the distances, paired over samples."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.cells import Cell, place
from gradscope.analysis.comparison_table import as_html, as_text
from gradscope.analysis.means import Floats, row_means
from gradscope.analysis.missing import absent
from gradscope.analysis.paired_cells import Difference, accuracy_change, distances, paired_difference
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.statistics import Cluster, Test, cluster_permutation, holm, paired_mean
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError

COMPARED_CURVES = ("gradient_cosine", "log_prob", "effective_strength")
"""Diagnostics that are also compared at each timestep."""


class _Quantity(NamedTuple):
    """A number per trajectory: the mean of a diagnostic over the timesteps."""

    variable: str
    transform: Callable[[Floats], Floats] = np.asarray
    """Applied to the values, ``(samples, timesteps)``, before the mean."""


def _last(values: Floats) -> Floats:
    return values[:, -1:]


SCALARS: Mapping[str, _Quantity] = {
    "gradient_cosine": _Quantity("gradient_cosine"),
    "update_cosine": _Quantity("update_cosine"),
    "score_cosine": _Quantity("score_cosine"),
    "reference_cosine": _Quantity("reference_cosine"),
    "log10 gradient_norm": _Quantity("gradient_norm", np.log10),
    "effective_strength": _Quantity("effective_strength"),
    "unit_gradient_lipschitz": _Quantity("unit_gradient_lipschitz"),
    "high_frequency_share": _Quantity("high_frequency_share"),
    "clipped_fraction": _Quantity("clipped_fraction"),
    "zero_fraction": _Quantity("zero_fraction"),
    "entropy": _Quantity("entropy"),
    "final log_prob": _Quantity("log_prob", _last),
}


@dataclass(frozen=True)
class Comparison:
    """Cell b compared with cell a; all differences are b minus a."""

    a: Cell
    b: Cell
    samples: int
    """Number of samples that are finished in both cells; only these are compared."""
    scalars: pd.DataFrame
    """One row per diagnostic of `SCALARS`: mean_a, mean_b, estimate, low, high, effect, n, p, p_holm, note."""
    accuracy: Test | None
    """Change of the judge's accuracy; None if the store has no verdicts."""
    curves: dict[str, list[Cluster]]
    """Clusters of timesteps for each diagnostic. `first` and `last` are diffusion times in sampling order. p is
    corrected within a curve."""
    distance: dict[str, Difference]
    """Difference of each statistic of the evaluation: fd_*, kd_*, coverage, ..."""
    missing: dict[str, str]
    """Diagnostics that could not be compared, and why."""

    def __repr__(self) -> str:
        return as_text(self)

    def _repr_html_(self) -> str:
        """The form in which a notebook shows the comparison."""
        return as_html(self)

    def asdict(self) -> dict[str, Any]:
        """Convert to plain dictionaries, lists and numbers, ready for JSON; None replaces NaN."""
        return jsonable(
            {
                "a": dict(self.a),
                "b": dict(self.b),
                "samples": self.samples,
                "scalars": self.scalars.to_dict("records"),
                "accuracy": None if self.accuracy is None else asdict(self.accuracy),
                "curves": {name: [asdict(cluster) for cluster in found] for name, found in self.curves.items()},
                "distance": {name: asdict(difference) for name, difference in self.distance.items()},
                "missing": self.missing,
            }
        )


def compare(ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float]) -> Comparison:
    """Compare cell b with cell a, over the samples that are finished in both.

    For each diagnostic, the difference is averaged over the timesteps at which both cells are finite. This mean per
    trajectory is tested by Student's t, with Holm's correction over the table. Curves are tested by sign-flip cluster
    permutation; the judge's verdicts, where both cells have one, by McNemar's test. Distances are compared by the
    bootstrap replicates of the evaluation, which drew the same samples in every cell. With fewer than
    `statistics.MINIMUM_SAMPLES` samples there are estimates and intervals, but no p.

    Parameters
    ----------
    ds
        A store.
    a, b
        Names of the two cells: ``{"classifier": "robust", "stabilizer": "adam"}``. Dimensions of size one may be left
        out.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same.

    Examples
    --------
    >>> cell = {"classifier": "non_robust", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5}
    >>> gradscope.compare(ds, cell, cell | {"stabilizer": "adam"}).samples
    16
    """
    ds = restore_dims(ds)
    places = place(ds, a), place(ds, b)
    if places[0] == places[1]:
        raise GradscopeError(f"compare: both are the cell {_name(_cell(ds, places[0]))}")
    first, second = (ds.isel(at) for at in places)
    both = finished(first) & finished(second)
    missing: dict[str, str] = {}

    def paired(name: str) -> tuple[Floats, Floats]:
        values = [cell[name].transpose("sample", ...).values[both].astype(np.float64) for cell in (first, second)]
        return values[0], values[1]

    timestep = ds["timestep"].values.tolist()
    rows, curves = [], {}
    for title, (name, transform) in SCALARS.items():
        if reason := absent(ds, name):
            missing[title] = reason
            continue
        before, after = paired(name)
        with np.errstate(divide="ignore", invalid="ignore"):  # norms may be 0, and their logarithm infinite
            rows.append({"diagnostic": title} | _scalar(transform(before), transform(after)))
        if name in COMPARED_CURVES:
            found = cluster_permutation(paired_difference(before, after))
            curves[name] = [replace(c, first=timestep[c.first], last=timestep[c.last]) for c in found]
    columns = ["diagnostic", "mean_a", "mean_b", "estimate", "low", "high", "effect", "n", "p", "p_holm", "note"]
    scalars = pd.DataFrame(rows, columns=columns)
    scalars["p_holm"] = holm(scalars["p"].to_numpy(dtype=np.float64))

    accuracy = None
    if reason := absent(ds, "judge_prediction"):
        missing["accuracy"] = reason
    else:
        accuracy = accuracy_change(first, second)
    distance = distances(first, second)
    if not distance:
        missing["distance"] = absent(ds, "fd_*_replicates")
    return Comparison(
        _cell(ds, places[0]), _cell(ds, places[1]), int(both.sum()), scalars, accuracy, curves, distance, missing
    )


def _scalar(a: Floats, b: Floats) -> dict[str, Any]:
    """One row of `Comparison.scalars` from values ``(samples, timesteps)``."""
    difference = paired_difference(a, b)
    finite = np.isfinite(difference)
    mean_a, mean_b, mean = (row_means(np.where(finite, x, np.nan)) for x in (a, b, difference))
    test = paired_mean(mean)
    recorded = finite.any(axis=0)  # a cosine is NaN at the first step by definition; that is no loss
    lost = int((~finite[:, recorded]).sum())
    notes = (test.note, f"{lost} of {finite[:, recorded].size} timesteps not finite" if lost else "")
    return {
        "mean_a": float(np.nanmean(mean_a)) if test.n else np.nan,
        "mean_b": float(np.nanmean(mean_b)) if test.n else np.nan,
        "estimate": test.estimate,
        "low": test.low,
        "high": test.high,
        "effect": test.effect,
        "n": test.n,
        "p": test.p,
        "note": "; ".join(filter(None, notes)),
    }


def _cell(ds: xr.Dataset, index: Mapping[str, int]) -> Cell:
    return {dim: ds[dim].values.tolist()[i] for dim, i in index.items()}


def _name(cell: Cell) -> str:
    return ", ".join(f"{dim} {value}" for dim, value in cell.items())


def jsonable(value: Any) -> Any:
    """Convert mappings, lists and numbers to what JSON can hold: None replaces numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
