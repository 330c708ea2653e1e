"""Two cells of a run, paired over samples.

Cells can be paired because all cells of a run share each sample's initial noise, step noise and label: what differs
between the two trajectories of a sample is the guidance alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.contents import Cell, absent, cells, finished, judged, place
from gradscope.analysis.statistics import Cluster, Test, cluster_permutation, holm, mcnemar, paired_mean
from gradscope.analysis.subsets import whole
from gradscope.errors import GradscopeError, one_of
from gradscope.intervals import bootstrap
from gradscope.store.dims import cell_dims

CURVES = ("gradient_cosine", "log_prob", "effective_strength")
"""Diagnostics, of those below, that are compared timestep by timestep too."""

KERNEL = ("kd_", "kid")
"""Beginnings of the kernel distances' names: of all distances these alone have no bias at any number of samples."""

_RESOLUTION = 1e-6  # relative, of what sums over an image in float32

Floats = NDArray[np.float64]


class _Quantity(NamedTuple):
    """What is compared of a trajectory: the mean over its timesteps of a diagnostic."""

    variable: str
    transform: Callable[[Floats], Floats] = np.asarray
    """Of the values, shape ``(samples, timesteps)``, before the mean."""


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
class Difference:
    """Of a distance, or another statistic of a whole set of samples: b less a."""

    estimate: float
    low: float
    high: float
    """95 % paired bootstrap interval."""
    error: float
    """Standard deviation of the replicates."""


@dataclass(frozen=True)
class Comparison:
    """Cell b against cell a; all differences are b less a."""

    a: Cell
    b: Cell
    samples: int
    """Finished in both cells: those that are compared."""
    scalars: pd.DataFrame
    """One row a diagnostic of `SCALARS`: mean_a, mean_b, estimate, low, high, effect, n, p, p_holm, note."""
    accuracy: Test | None
    """Of the judge's verdicts; None where there are none."""
    curves: dict[str, list[Cluster]]
    """By diagnostic; `first` and `last` are diffusion times, in sampling order. p is corrected within a curve."""
    distance: dict[str, Difference]
    """By statistic of the evaluation: fd_*, kd_*, coverage, ..."""
    missing: dict[str, str]
    """Why a diagnostic is not here."""

    def asdict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and None for NaN: ready for JSON."""
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

    A trajectory's scalar is the mean, over the timesteps at which both cells are finite, of the difference: tested by
    Student's t, with Holm's correction over the table. Curves are tested by sign-flip cluster permutation,
    the judge's verdicts by McNemar's test, a sample without a finite image counting as wrong. Distances are compared by
    the bootstrap replicates of the evaluation, which drew the same samples in every cell. Below `statistics.MINIMUM`
    samples there are estimates and intervals, and no p.

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
    ds = whole(ds)
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
        with np.errstate(divide="ignore", invalid="ignore"):  # of the logarithm
            rows.append({"diagnostic": title} | _scalar(transform(before), transform(after)))
        if name in CURVES:
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


def compare_all(ds: xr.Dataset, baseline: str = "none") -> pd.DataFrame:
    """Does a stabiliser help, and does x0? Every guided cell against its reference.

    Each cell against the same cell with the `baseline` stabiliser, against the same cell at x_t, and, where it differs
    in both, against the cell that has neither technique. Unguided cells (scale 0) do not differ and are left out.

    Returns
    -------
    pandas.DataFrame
        One row a comparison: the cell; ``against``, the names that its reference has in their place; ``technique``,
        the cell's own names for these; ``at``, what both share of classifier_input and stabilizer; ``n``, samples
        finished in both; ``accuracy``, the judge's accuracy less that of the reference, with ``accuracy_low`` and
        ``accuracy_high``; ``cohens_g``, McNemar's ``p``, and ``p_holm`` over the table; for every kernel distance
        ``<kd>``, ``<kd>_low`` and ``<kd>_high`` likewise (below 0 the cell is better); and ``note``.

    Raises
    ------
    GradscopeError
        There are several stabilisers, and `baseline` is none of them.
    """
    ds = whole(ds)
    stabilizers = ds["stabilizer"].values.tolist()
    if baseline not in stabilizers and len(stabilizers) > 1:
        raise GradscopeError(f"compare_all: no stabilizer {baseline!r}; {one_of(baseline, stabilizers)}")
    both_dims = {"classifier_input": "x_t", "stabilizer": baseline}
    references = ({"stabilizer": baseline}, {"classifier_input": "x_t"}, both_dims)
    kernel = [name for name in _replicated(ds) if name.startswith(KERNEL)]
    rows = []
    for cell in cells(ds):
        for reference in references:
            exists = all(name in ds[dim].values.tolist() for dim, name in reference.items())
            if cell["guidance_scale"] == 0 or not exists or any(cell[dim] == reference[dim] for dim in reference):
                continue
            first, second = ds.isel(place(ds, {**cell, **reference})), ds.isel(place(ds, cell))
            both = finished(first) & finished(second)
            row = {
                **cell,
                "against": ", ".join(reference.values()),
                "technique": " + ".join(str(cell[dim]) for dim in reference),
                "at": ", ".join(str(cell[dim]) for dim in both_dims if dim not in reference),
                "n": int(both.sum()),
                "note": absent(ds, "judge_prediction"),
            }
            if "judge_prediction" in ds:
                accuracy = accuracy_change(first, second)
                row |= _accuracy_columns(accuracy) | {"n": accuracy.n}
            for name, apart in distances(first, second).items():
                if name in kernel:
                    row |= {name: apart.estimate, f"{name}_low": apart.low, f"{name}_high": apart.high}
            rows.append(row)
    columns = [*cell_dims(ds), "against", "technique", "at", "n"]
    columns += ["accuracy", "accuracy_low", "accuracy_high", "cohens_g", "p", "p_holm"]
    columns += [f"{name}{end}" for name in kernel for end in ("", "_low", "_high")] + ["note"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p"].to_numpy(dtype=np.float64))
    return table


def _scalar(a: Floats, b: Floats) -> dict[str, Any]:
    """One row of `Comparison.scalars` from values ``(samples, timesteps)``."""
    difference = paired_difference(a, b)
    finite = np.isfinite(difference)
    counts = finite.sum(axis=1)
    whole = np.where(counts > 0, counts, np.nan)
    mean_a, mean_b, mean = (np.where(finite, x, 0).sum(axis=1) / whole for x in (a, b, difference))
    test = paired_mean(mean)
    recorded = finite.any(axis=0)  # not by definition NaN, as a cosine at the first step is
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


def paired_difference(a: Floats, b: Floats) -> Floats:
    """The difference b - a; 0 where float32 cannot tell: strengths made equal by normalisation differ by rounding."""
    with np.errstate(invalid="ignore"):
        difference = b - a
    return np.where(np.isclose(a, b, rtol=_RESOLUTION, atol=0) & np.isfinite(difference), 0, difference)


def _accuracy_columns(test: Test) -> dict[str, Any]:
    return {
        "accuracy": test.estimate,
        "accuracy_low": test.low,
        "accuracy_high": test.high,
        "cohens_g": test.effect,
        "p": test.p,
        "note": test.note,
    }


def _replicated(ds: xr.Dataset) -> list[str]:
    """Statistics that have bootstrap replicates."""
    names = [str(name).removesuffix("_replicates") for name in ds.data_vars if str(name).endswith("_replicates")]
    return sorted(name for name in names if name in ds)


def accuracy_change(a: xr.Dataset, b: xr.Dataset, level: float = 0.95) -> Test:
    """The judge's accuracy in cell b less that in cell a, paired over the samples that are judged in both."""
    both = judged(a) & judged(b)
    before, after = ((cell["judge_prediction"] == cell["label"]).values[both] for cell in (a, b))
    return mcnemar(before, after, level)


def distances(a: xr.Dataset, b: xr.Dataset) -> dict[str, Difference]:
    """Every statistic of the evaluation that has bootstrap replicates, in cell b less that in cell a."""
    out = {}
    for name in _replicated(a):
        estimate = float(b[name]) - float(a[name])
        replicates = b[f"{name}_replicates"].values - a[f"{name}_replicates"].values
        out[name] = Difference(estimate, *bootstrap(estimate, replicates), float(np.std(replicates)))
    return out


def _cell(ds: xr.Dataset, index: Mapping[str, int]) -> Cell:
    return {dim: ds[dim].values.tolist()[i] for dim, i in index.items()}


def _name(cell: Cell) -> str:
    return ", ".join(f"{dim} {value}" for dim, value in cell.items())


def jsonable(value: Any) -> Any:
    """Mappings, lists and numbers as JSON can hold them: None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
