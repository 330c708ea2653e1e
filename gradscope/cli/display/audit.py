"""Output of `gradscope audit`: a verdict on each classifier, and the numbers by timestep."""

from collections.abc import Callable, Iterator
from itertools import groupby

import numpy as np
import xarray as xr
from rich.table import Table

from gradscope.auditing.prediction import Prediction, read_rule, sentence

_FEW = 64


def audit_verdicts(ds: xr.Dataset) -> list[str]:
    """One sentence for each classifier and input of an audit: the usable timesteps, and the reason at each limit."""
    return [f"{name} at {kind}: {_verdict(part)}" for name, kind, part in _parts(ds)]


def audit_predictions(ds: xr.Dataset) -> list[str]:
    """One sentence for each classifier and input of an audit with a denoiser: whether guidance will probably fail."""
    if "failure_probability" not in ds:
        return []
    rule = read_rule()
    found = []
    for name, kind, part in _parts(ds):
        features = {key: float(part[f"unguided_{key}"]) for key in rule.features}
        found.append(sentence(Prediction(name, kind, float(part["failure_probability"]), features), rule))
    return found


def audit_tables(ds: xr.Dataset) -> list[Table]:
    """One table for each classifier and input of an audit, with one row per timestep."""
    tables = [_table(f"{name} at {kind}", part) for name, kind, part in _parts(ds)]
    n = ds.sizes["sample"]
    few = f", fewer than {_FEW}: take the verdicts as provisional" if n < _FEW else ""
    tables[-1].caption = (
        f"N = {n} held-out images{few}; chance {float(ds['chance']):.2f}. ECE: expected calibration error; log p: "
        "mean; norm: of the gradient, median, 5 and 95 % quantiles; cos: mean cosine with the gradient at the next "
        "larger timestep; noise: of two noises' gradients; nats: leverage, median; guide: whether it can guide"
    )
    return tables


def _parts(ds: xr.Dataset) -> Iterator[tuple[str, str, xr.Dataset]]:
    for name in ds["classifier"].values:
        for kind in ds["classifier_input"].values:
            yield name, kind, ds.sel(classifier=name, classifier_input=kind).compute()


def _verdict(part: xr.Dataset) -> str:
    """Usable and unusable ranges of the audited timesteps, from the smallest."""
    rows = part.sortby("timestep")
    can = rows["can_guide"].values
    runs = [list(group) for _, group in groupby(range(len(can)), key=lambda i: can[i])]
    if can.all():
        return f"can guide at all {len(can)} audited timesteps"
    usable = [_range(rows, run) for run in runs if can[run[0]]]
    stops = [f"{_range(rows, run)}: {_reason(rows.isel(timestep=run[0]))}" for run in runs if not can[run[0]]]
    start = f"can guide for {' and '.join(usable)}; not for " if usable else "can guide at no audited timestep; "
    return start + "; ".join(stops)


def _range(rows: xr.Dataset, run: list[int]) -> str:
    times = rows["timestep"].values
    low, high = times[run[0]], times[run[-1]]
    if low == high:
        return f"t = {low}"
    if run[0] == 0 and run[-1] < len(times) - 1:
        return f"t <= {high}"
    if run[0] > 0 and run[-1] == len(times) - 1:
        return f"t >= {low}"
    return f"{low} <= t <= {high}"


def _reason(row: xr.Dataset) -> str:
    t, chance = int(row["timestep"]), float(row["chance"])
    low, high = row["accuracy_interval"].values
    if not low > chance:
        place = "includes" if high >= chance else "is below"
        return f"at {t} the accuracy [{low:.2f}, {high:.2f}] {place} chance {chance:.2f}"
    low, high = row["noise_cosine_interval"].values
    place = "includes" if high >= 0 else "is below"
    return f"at {t} the cosine of two noises' gradients [{low:.3f}, {high:.3f}] {place} 0"


def _table(title: str, part: xr.Dataset) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, padding=(0, 1, 0, 0))
    columns = dict(_COLUMNS)
    if (part["zero_fraction"] > 0).any():
        columns["zeros"] = lambda row: _number(row["zero_fraction"].mean())
    if (part["finite_fraction"] < 1).any():
        columns["not finite"] = lambda row: str(int((row["finite_fraction"] < 1).sum()))
    for head in ("t", *columns):
        table.add_column(head, justify="right", no_wrap=True)
    for k, t in enumerate(part["timestep"].values):
        table.add_row(str(t), *(column(part.isel(timestep=k)) for column in columns.values()))
    return table


def _number(value: xr.DataArray, form: str = "z.2f") -> str:
    number = float(value)
    return "-" if np.isnan(number) else f"{number:{form}}"


def _between(values: xr.DataArray, form: str = "z.2f") -> str:
    return " ".join(_number(value, form) for value in values)


_COLUMNS: dict[str, Callable[[xr.Dataset], str]] = {
    "acc.": lambda row: _number(row["accuracy"]),
    "95 %": lambda row: _between(row["accuracy_interval"]),
    "ECE": lambda row: _number(row["calibration_error"]),
    "log p": lambda row: _number(row["log_prob"].mean(skipna=False), "z.1f"),
    "norm": lambda row: _number(row["gradient_norm"].median(skipna=False), ".0e"),
    "5, 95 %": lambda row: _between(row["gradient_norm"].quantile([0.05, 0.95], skipna=False), ".0e"),
    "cos": lambda row: _number(row["gradient_cosine"].mean(skipna=True)),
    "noise": lambda row: _number(row["noise_cosine"].fillna(0).mean()),
    "nats": lambda row: _number(row["leverage"].median(skipna=False), ".0e"),
    "guide": lambda row: "yes" if row["can_guide"] else "no",
}
