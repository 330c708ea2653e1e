"""Tables of the command line."""

import json
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
from rich.console import Console
from rich.table import Table

from gradscope.analysis.independence import also_guides, warnings
from gradscope.cli.display.plain import plain
from gradscope.store import CELL_DIMS, cell_dims


class LastingConsole(Console):
    """Console that ignores a closed pipe: a recording goes on when its output is closed."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


_Columns = dict[str, Callable[[xr.Dataset], str]]
_CLASSES = 20
"""Largest number of classes that are shown one by one if they do not fit into the table of cells."""
_CONFIRMED = "share of the guide's success above chance that the judge confirms"


def summary_tables(rows: xr.Dataset, warning: str = "", width: int = 80) -> list[Table]:
    """Tables of a summary with one row per cell: accuracies, then the behaviour of the gradients.

    Parameters
    ----------
    rows
        See `gradscope.analysis.summary`.
    warning
        Text below the judge's numbers; empty for none.
    width
        Columns of the terminal. Accuracies by class that do not fit get tables of their own.
    """
    tables = []
    notes = [f"N = {_samples(rows)} a cell"]
    if "own_accuracy" in rows:
        notes.append("own: share of samples in which the guide sees the target class")
    if "judge_accuracy" in rows:
        seen = "in which the judge sees it"
        if "own_accuracy" not in rows:
            seen = "share of samples in which the judge sees the target class"
        notes.append(f"judge: {seen}, with Wilson's interval")
    if accuracies := _accuracies(rows):
        tables += _outcome(rows, accuracies, notes, warning, width)
    title = "How the gradients behaved (means over samples and timesteps)"
    caption = "cosine: with the previous step; strength: norm of the shift over that of the step's noise"
    return [*tables, _table(rows, title, _behaviour(rows), caption)]


def _outcome(rows: xr.Dataset, accuracies: _Columns, notes: list[str], warning: str, width: int) -> list[Table]:
    """Accuracies. Those by class get one column or tables of their own; of many classes only the range is shown."""
    title, end = "What came out", [f"warning: {warning}"] if warning else []
    if "class_accuracy" not in rows:
        return [_table(rows, title, accuracies, "; ".join(notes))]
    names = [str(name) for name in rows["class"].values]
    by_class = {"judge, by class": lambda row: " ".join(_number(value) for value in row["class_accuracy"].values)}
    whole = _table(rows, title, accuracies | by_class, "; ".join([*notes, f"by class: {', '.join(names)}", *end]))
    if _width(whole) <= width:
        return [whole]
    if len(names) > _CLASSES:
        notes.append(f"lowest, median, highest: the judge, over the {len(names)} classes; class_accuracy has them all")
        return [_table(rows, title, accuracies | _range(), "; ".join([*notes, *end]))]
    return [_table(rows, title, accuracies, "; ".join([*notes, *end])), *_by_class(rows, names, width)]


def _by_class(rows: xr.Dataset, names: list[str], width: int) -> list[Table]:
    """As few tables as fit the width, with about the same number of classes in each."""
    for parts in range(1, len(names) + 1):
        size = -(-len(names) // parts)
        tables = []
        for first in range(0, len(names), size):
            numbers = range(first, min(first + size, len(names)))
            columns: _Columns = {str(k): partial(_of_class, k) for k in numbers}
            caption = "share of a class's samples in which the judge sees it: " + ", ".join(
                f"{k} {names[k]}" for k in numbers
            )
            tables.append(_table(rows, "The judge, by class", columns, caption))
        if all(_width(table) <= width for table in tables):
            break
    return tables


def _of_class(k: int, row: xr.Dataset) -> str:
    return _number(row["class_accuracy"][k])


def _range() -> _Columns:
    of: dict[str, Callable[[np.ndarray], float]] = {"lowest": np.nanmin, "median": np.nanmedian, "highest": np.nanmax}

    def column(reduce: Callable[[np.ndarray], float], row: xr.Dataset) -> str:
        values = row["class_accuracy"].values
        return "-" if np.isnan(values).all() else _number(reduce(values))

    return {name: partial(column, reduce) for name, reduce in of.items()}


def _width(table: Table) -> int:
    """Width of a table without limits."""
    return Console(width=10_000).measure(table).maximum


def evaluation_tables(ds: xr.Dataset) -> list[Table]:
    """Verdicts and comparisons with real images, as `gradscope evaluate` added them; one row per cell."""
    about, rows = _evaluation(ds)
    columns: _Columns = {}
    if "own_accuracy" in rows:
        columns["own"] = lambda row: _number(row["own_accuracy"])
    for name, head in {"judge_accuracy": "judge [95 %]", "transfer_ratio": "transfer ratio [95 %]"}.items():
        if name in rows:
            columns[head] = partial(_with_interval, name)
    notes = f"N = {about.get('N', '?')} a cell; own: the guide sees it; judge: the independent judge"
    caption = f"{notes}; transfer ratio: {_CONFIRMED}" + _warned(ds, "judge")
    verdicts = [_table(rows, "Who sees the target class", columns, caption)] if columns else []
    return verdicts + _distances(ds, about, rows)


def _warned(ds: xr.Dataset, role: str) -> str:
    """The end of a caption if a guide has the weights of the judge or of the extractor."""
    warning = warnings(also_guides(ds)).get(role)
    return f"; warning: {warning}" if warning else ""


def further_tables(ds: xr.Dataset) -> list[Table]:
    """The part of `evaluation_tables` that `summary_tables` lacks: transfer ratios, comparisons with real images."""
    about, rows = _evaluation(ds)
    ratios = []
    if "transfer_ratio" in rows:
        columns: _Columns = {"transfer ratio [95 %]": partial(_with_interval, "transfer_ratio")}
        caption = f"N = {about.get('N', '?')} a cell; {_CONFIRMED}; -: the guide's own success is not above chance"
        caption += _warned(ds, "judge")
        ratios = [_table(rows, "What the judge confirms", columns, caption)]
    return ratios + _distances(ds, about, rows)


def _evaluation(ds: xr.Dataset) -> tuple[dict[str, Any], xr.Dataset]:
    """The settings of the evaluation, and its results over the cells."""
    about = json.loads(ds.attrs["evaluation"])
    rows = ds[[name for name in about.get("variables", ()) if name in ds.data_vars]].drop_dims(
        "sample", errors="ignore"
    )
    return about, rows.compute()


def _distances(ds: xr.Dataset, about: dict[str, Any], rows: xr.Dataset) -> list[Table]:
    name = next(iter(about.get("distances", ())[1:]), "")  # the kernel distance, since the Frechet distance is biased
    needed = (name, f"{name}_interval", f"{name}_floor", "coverage", "coverage_interval", "coverage_floor")
    if not all(each in rows for each in needed):
        return []
    columns: _Columns = {
        f"{name} [95 %]": partial(_with_interval, name, digits=3),
        "coverage [95 %]": partial(_with_interval, "coverage"),
    }
    caption = (
        f"N = {about.get('N', '?')} a cell against {about.get('real_images', '?')} images; "
        f"{about.get('floor_images', '?')} other real images "
        f"in place of samples: {name} {_number(rows[f'{name}_floor'], 3)}, coverage {_number(rows['coverage_floor'])}"
    ) + _warned(ds, "extractor")
    return [_table(rows, "Samples against real images", columns, caption)]


def _accuracies(rows: xr.Dataset) -> _Columns:
    columns: _Columns = {}
    if "own_accuracy" in rows:
        columns["own"] = lambda row: _number(row["own_accuracy"])
    if "judge_accuracy" in rows:
        columns["judge"] = lambda row: _number(row["judge_accuracy"])
        columns["95 %"] = lambda row: "-".join(_number(bound) for bound in row["judge_accuracy_interval"].values)
    return columns


def _behaviour(rows: xr.Dataset) -> _Columns:
    heads = {"gradient_cosine": "gradient cosine", "update_cosine": "update cosine", "effective_strength": "strength"}
    columns: _Columns = {head: partial(_cell, name) for name, head in heads.items() if name in rows}
    if "nonfinite_steps" in rows and int(rows["nonfinite_steps"].sum()):
        columns["steps not finite"] = lambda row: str(int(row["nonfinite_steps"]))
    return columns


def _cell(name: str, row: xr.Dataset) -> str:
    return _number(row[name], digits=3)


def _with_interval(name: str, row: xr.Dataset, digits: int = 2) -> str:
    value, low, high = (_number(each, digits) for each in (row[name], *row[f"{name}_interval"].values))
    return "-" if np.isnan(row[name]) else f"{value} [{low}, {high}]"


def _table(rows: xr.Dataset, title: str, columns: _Columns, caption: str) -> Table:
    """A table with one row per cell."""
    table = Table(title=title, caption=plain(caption), title_justify="left", caption_justify="left", box=None)
    table.collapse_padding = True
    dims = cell_dims(rows)
    for head in ("classifier", "input", "stabilizer", *dims[len(CELL_DIMS) :]):
        table.add_column(head, overflow="fold")  # on narrow terminals names break, not numbers
    for head in ("scale", *columns):
        table.add_column(head, justify="right", no_wrap=True)
    for index in product(*(range(rows.sizes[dim]) for dim in dims)):
        row = rows[dict(zip(dims, index, strict=True))]
        names = [plain(row[dim].values) for dim in dims if dim != "guidance_scale"]
        table.add_row(*names, f"{float(row['guidance_scale']):g}", *(column(row) for column in columns.values()))
    return table


def _number(value: xr.DataArray | float, digits: int = 2) -> str:
    number = float(value)
    return "-" if np.isnan(number) else f"{number:.{digits}f}"


def _samples(rows: xr.Dataset) -> str:
    low, high = int(rows["samples"].min()), int(rows["samples"].max())
    return str(low) if low == high else f"{low} to {high}"
