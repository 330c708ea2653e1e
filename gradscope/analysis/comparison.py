"""Compare two cells, of one store or of two, in every diagnostic, in the judge's accuracy and in the distances."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from gradscope.analysis.by_class import TARGET
from gradscope.analysis.cells import Cell
from gradscope.analysis.comparison_table import as_html, as_text
from gradscope.analysis.configurations import judge_of
from gradscope.analysis.independent import independent_means, independent_shares
from gradscope.analysis.means import Floats, finite_mean, row_means
from gradscope.analysis.missing import absent
from gradscope.analysis.paired_cells import Difference, distances, paired_difference
from gradscope.analysis.statistics import Cluster, Test, cluster_permutation, holm, mcnemar, paired_mean
from gradscope.analysis.two_cells import TwoCells
from gradscope.analysis.verdicts import correct, judged

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
    """Number of samples that are finished in both cells; only these are compared. Unless samples are paired, the number
    that is finished in a."""
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
    unpaired: str = ""
    """Why samples of two stores are not pairs; empty where they are."""
    judged: tuple[int, int] = (0, 0)
    """Number of samples with a verdict, in a and in b, that `accuracy` compares."""

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
                "unpaired": self.unpaired,
                "judged": list(self.judged),
            }
        )


def compare(
    ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float], other: xr.Dataset | None = None
) -> Comparison:
    """Compare cell b with cell a, of the same store or of another one, over the samples that are finished in both.

    For each diagnostic, the difference is averaged over the timesteps at which both cells are finite. This mean per
    trajectory is tested by Student's t, with Holm's correction over the table. Curves are tested by sign-flip cluster
    permutation; the judge's verdicts, where both cells have one, by McNemar's test. Distances are compared by the
    bootstrap replicates of the evaluation, which drew the same samples in every cell. With fewer than
    `statistics.MINIMUM_SAMPLES` samples there are estimates and intervals, but no p.

    Samples of two stores are paired where they have the same seed and label. Otherwise the cells have other samples:
    means are compared by Welch's test and verdicts by Newcombe's interval, and ``unpaired`` says why. Where the stores
    have other timesteps, each trajectory has its mean over its own, and curves are not compared.

    Parameters
    ----------
    ds
        A store.
    a, b
        Names of the two cells: ``{"classifier": "robust", "stabilizer": "adam"}``. Dimensions of size one may be left
        out.
    other
        The store of b; None if it is that of a.

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
    pair = TwoCells(ds, a, b, other)
    missing: dict[str, str] = {}
    timestep = pair.stores[0]["timestep"].values.tolist()
    rows, curves = [], {}
    for title, (name, transform) in SCALARS.items():
        if reason := next(filter(None, (absent(store, name) for store in pair.stores)), ""):
            missing[title] = reason
            continue
        before, after = pair.values(name)
        with np.errstate(divide="ignore", invalid="ignore"):  # norms may be 0, and their logarithm infinite
            rows.append({"diagnostic": title} | _scalar(pair, transform(before), transform(after)))
        if name in COMPARED_CURVES and pair.paired and pair.same_times:
            found = cluster_permutation(paired_difference(before, after))
            curves[name] = [replace(c, first=timestep[c.first], last=timestep[c.last]) for c in found]
    columns = ["diagnostic", "mean_a", "mean_b", "estimate", "low", "high", "effect", "n", "p", "p_holm", "note"]
    scalars = pd.DataFrame(rows, columns=columns)
    scalars["p_holm"] = holm(scalars["p"].to_numpy(dtype=np.float64))

    accuracy, seen = None, (0, 0)
    if reason := _why_no_accuracy(pair):
        missing["accuracy"] = reason
    else:
        accuracy, seen = _accuracy(pair)
    distance = {} if pair.of_two_stores else distances(*pair.cells)
    if pair.of_two_stores:
        missing["distance"] = "distances are compared within one store: two evaluations may draw other images"
    elif TARGET in pair.stores[0].attrs:
        missing["distance"] = "distances are those of all classes together"
    elif not distance:
        missing["distance"] = absent(ds, "fd_*_replicates")
    samples = len(pair.rows[0])
    return Comparison(pair.a, pair.b, samples, scalars, accuracy, curves, distance, missing, pair.why_unpaired, seen)


def _scalar(pair: TwoCells, a: Floats, b: Floats) -> dict[str, Any]:
    """One row of `Comparison.scalars` from values ``(samples, timesteps)``."""
    mean_a, mean_b = pair.means(a, b)
    if pair.paired and pair.same_times:
        difference = paired_difference(a, b)
        finite = [np.isfinite(difference)]
        test = paired_mean(row_means(np.where(finite[0], difference, np.nan)))
    else:
        finite = [np.isfinite(a), np.isfinite(b)]
        test = paired_mean(mean_b - mean_a) if pair.paired else independent_means(mean_a, mean_b)
    if pair.paired:
        known = np.isfinite(mean_a) & np.isfinite(mean_b)
        mean_a, mean_b = mean_a[known], mean_b[known]
    # A cosine is NaN at the first step by definition; that is no loss.
    lost = sum(int((~each[:, each.any(axis=0)]).sum()) for each in finite)
    total = sum(each[:, each.any(axis=0)].size for each in finite)
    notes = (
        test.note,
        f"{lost} of {total} timesteps not finite" if lost else "",
        "" if pair.same_times else "each over its own timesteps",
    )
    return {
        "mean_a": float(finite_mean(mean_a, axis=0)[0]),
        "mean_b": float(finite_mean(mean_b, axis=0)[0]),
        "estimate": test.estimate,
        "low": test.low,
        "high": test.high,
        "effect": test.effect,
        "n": test.n,
        "p": test.p,
        "note": "; ".join(filter(None, notes)),
    }


def _why_no_accuracy(pair: TwoCells) -> str:
    """Why the judge's verdicts cannot be compared; empty if they can."""
    if reason := next(filter(None, (absent(store, "judge_prediction") for store in pair.stores)), ""):
        return reason
    judges = [judge_of(store) for store in pair.stores]
    return "" if judges[0] == judges[1] else f"the stores have other judges, {judges[0]} and {judges[1]}"


def _accuracy(pair: TwoCells) -> tuple[Test, tuple[int, int]]:
    """Test of the judge's accuracy, and the number of samples with a verdict in a and in b."""
    seen = [judged(cell)[rows] for cell, rows in zip(pair.cells, pair.rows, strict=True)]
    if pair.paired:
        seen = [seen[0] & seen[1]] * 2
    right = [
        correct(cell, "judge_prediction")[rows][known]
        for cell, rows, known in zip(pair.cells, pair.rows, seen, strict=True)
    ]
    test = mcnemar(*right) if pair.paired else independent_shares(*right)
    return test, (len(right[0]), len(right[1]))


def jsonable(value: Any) -> Any:
    """Convert mappings, lists and numbers to what JSON can hold: None replaces numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
