"""Compare two cells of a run, paired over samples.

All cells of a run share each sample's initial noise, step noise and label. So the two trajectories of a sample differ
only in their guidance, and the sample is a pair.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import Cell, cells, place
from gradscope.analysis.means import row_means
from gradscope.analysis.missing import absent
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.statistics import Cluster, Test, cluster_permutation, holm, mcnemar, paired_mean
from gradscope.analysis.verdicts import judged
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError, one_of
from gradscope.intervals import bootstrap
from gradscope.store.dims import cell_dims

CURVES = ("gradient_cosine", "log_prob", "effective_strength")
"""Diagnostics that are also compared at each timestep."""

KERNEL_DISTANCES = ("kd_", "kid")
"""Prefixes of the kernel distances. Only these distances are unbiased at any number of samples."""

_RESOLUTION = 1e-6  # relative rounding error of a sum over an image in float32

Floats = NDArray[np.float64]


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
class Difference:
    """Difference b minus a of a statistic of a whole set of samples, such as a distance."""

    estimate: float
    low: float
    """Lower bound of the 95 % paired bootstrap interval."""
    high: float
    """Upper bound of the 95 % paired bootstrap interval."""
    error: float
    """Standard deviation of the replicates."""


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
    """Does a stabiliser help, and does x0? Compare every guided cell with its references.

    A cell is compared with the same cell with the `baseline` stabiliser, with the same cell at x_t, and, if it differs
    in both, with the cell that has neither technique. Unguided cells (scale 0) do not differ and are left out.

    Parameters
    ----------
    ds
        A store.
    baseline
        Name of the stabiliser that counts as none.

    Returns
    -------
    pandas.DataFrame
        One row per comparison:

        - the cell's names;
        - ``against``: the names by which the reference differs from the cell; ``technique``: the cell's own names in
          their place; ``at``: the classifier_input or stabilizer that both share;
        - ``n``: number of samples that are finished in both;
        - ``accuracy``: the judge's accuracy minus that of the reference, with its 95 % interval ``accuracy_low``,
          ``accuracy_high``, Cohen's g ``cohens_g``, McNemar's ``p``, and ``p_holm`` corrected over the table;
        - ``<kd>``, ``<kd>_low``, ``<kd>_high``: the same for every kernel distance (below 0 the cell is better);
        - ``note``: why a number is missing.

    Raises
    ------
    GradscopeError
        The store has several stabilisers, and `baseline` is not one of them.

    Examples
    --------
    >>> import xarray as xr
    >>> from gradscope.analysis import synthetic
    >>> none = synthetic.trajectories(accuracy=0.9)
    >>> smooth = synthetic.trajectories(accuracy=0.5).assign_coords(stabilizer=["smooth"])
    >>> table = compare_all(xr.concat([none, smooth], "stabilizer", data_vars="all", join="outer"))
    >>> table[["technique", "against", "n", "accuracy"]].round(2).to_dict("records")
    [{'technique': 'smooth', 'against': 'none', 'n': 64, 'accuracy': -0.3}]
    """
    ds = restore_dims(ds)
    stabilizers = ds["stabilizer"].values.tolist()
    if baseline not in stabilizers and len(stabilizers) > 1:
        raise GradscopeError(f"compare_all: no stabilizer {baseline!r}; {one_of(baseline, stabilizers)}")
    both_dims = {"classifier_input": "x_t", "stabilizer": baseline}
    references = ({"stabilizer": baseline}, {"classifier_input": "x_t"}, both_dims)
    kernel = [name for name in _replicated(ds) if name.startswith(KERNEL_DISTANCES)]
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


def paired_difference(a: Floats, b: Floats) -> Floats:
    """The difference b - a, and 0 where it is only rounding of float32.

    Normalisation makes strengths equal, but they still differ by rounding.
    """
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
    """Names of the statistics that have bootstrap replicates."""
    names = [str(name).removesuffix("_replicates") for name in ds.data_vars if str(name).endswith("_replicates")]
    return sorted(name for name in names if name in ds)


def accuracy_change(a: xr.Dataset, b: xr.Dataset, level: float = 0.95) -> Test:
    """The judge's accuracy in cell b minus that in cell a, paired over the samples that are judged in both."""
    both = judged(a) & judged(b)
    before, after = ((cell["judge_prediction"] == cell["label"]).values[both] for cell in (a, b))
    return mcnemar(before, after, level)


def distances(a: xr.Dataset, b: xr.Dataset) -> dict[str, Difference]:
    """Every statistic of the evaluation that has bootstrap replicates: in cell b minus in cell a."""
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
    """Convert mappings, lists and numbers to what JSON can hold: None replaces numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
