"""The report as one page that needs no network: it contains plotly.js, and its content policy forbids every request."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from gradscope import plots
from gradscope.analysis.cells import Cell, place
from gradscope.analysis.in_memory import in_memory
from gradscope.analysis.independence import also_guides, warnings
from gradscope.analysis.paired_cells import KERNEL_DISTANCES
from gradscope.analysis.verdicts import class_names
from gradscope.errors import GradscopeError
from gradscope.reporting.report import Report, grouped, headline, multiplicity
from gradscope.store.dims import cell_dims, sample_dims
from gradscope.store.sample_kind import sample_kind, why_not_drawn
from probes.catalogue import CATALOGUE

_TENSORS = ("x_t", "pred_original_sample", "gradient")
_DIVIDED = "Gradients are divided by their norm, which stands below"
_MAPS = f"{_DIVIDED}, and averaged over channels; all maps have the same limits."
_HOW_DRAWN = {
    "image": _MAPS,
    "video": f"Four frames side by side for each timestep. {_MAPS}",
    "curves": f"{_DIVIDED}; all curves of a tensor have the same limits.",
    "points": "Arrows: gradients at x_t, divided by their norm, which stands below.",
    "point": "Lines: x_t from noise to the end; dotted: x0-hat; arrows: the direction of the gradient.",
}
"""How the tensors of a sample are drawn, by its kind."""
_HEADS = {"classifier_input": "input", "guidance_scale": "scale", "samples": "N", "nonfinite_steps": "steps not finite"}
"""Heads of columns that are not named as the column."""
_FURTHER = ("kd_", "kid", "precision", "recall", "density")
"""Prefixes of the columns that form a second table."""
_COUNTS = ("samples", "nonfinite_steps", "n")
"""Columns with whole numbers."""


class _Figure(NamedTuple):
    html: Markup
    title: str
    caption: str


class _Value(NamedTuple):
    """A number as the page shows it."""

    text: str
    interval: str = ""
    sure: bool = False
    """For a difference: whether its interval excludes 0."""


def to_html(report: Report, ds: xr.Dataset) -> str:
    """The report of a store as one HTML page that needs no network.

    Parameters
    ----------
    report
        The report of this store.
    ds
        The store, for the figures. Tensors are read for one sample of two cells.

    Returns
    -------
    str
        The page, with all figures and scripts in it.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> from gradscope.reporting.report import report
    >>> ds = synthetic.trajectories("constant", samples=8)
    >>> page = to_html(report(ds), ds)
    >>> "<title>gradscope: 1 warning in 1 of 1 cells</title>" in page
    True
    """
    ds = in_memory(ds)
    return _template("report.html.jinja").render(
        report=report,
        headline=headline(report.findings, len(report.cells)),
        multiplicity=multiplicity(report.tests),
        groups=list(grouped(report.findings)),
        grid={dim: _names(ds, dim) for dim in cell_dims(ds)},
        sizes=ds.sizes,
        name=plots.cell_name,
        cells=_cells(report),
        warnings=list(warnings(also_guides(ds)).values()),
        comparisons=_comparisons(report.comparisons),
        figures=_figures(report, ds),
        not_drawn=why_not_drawn(ds),
        provenance={k: v for k, v in report.provenance.items() if k not in ("configuration", "evaluation")},
    )


def to_notebook(report: Report) -> str:
    """The report without figures, as part of a page: findings, the table of cells, signatures that were not tested."""
    return _template("notebook.html.jinja").render(
        report=report,
        headline=headline(report.findings, len(report.cells)),
        multiplicity=multiplicity(report.tests),
        groups=list(grouped(report.findings)),
        name=plots.cell_name,
        cells=_cells(report)["main"],
    )


def _template(name: str) -> Template:
    found = Environment(loader=PackageLoader("gradscope.reporting"), autoescape=True, undefined=StrictUndefined)
    found.filters |= {"prose": _prose, "sentence": _sentence, "short": _short}
    return found.get_template(name)


def _short(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def check_path(path: Path) -> None:
    """Check that a page can be written to this path, and that it can overwrite only a page.

    Raises
    ------
    GradscopeError
        The name does not end in .html, the path is a folder, or its folder does not exist.
    """
    if path.suffix != ".html":
        raise GradscopeError(f"--html: a report is saved as NAME.html; got {str(path)!r}")
    if path.is_dir() or not path.parent.is_dir():
        raise GradscopeError(f"--html: {path} is a folder" if path.is_dir() else f"--html: no folder {path.parent}")


def worst_and_best(report: Report, ds: xr.Dataset) -> list[Cell]:
    """The worst and the best guided cell among those with tensors.

    They are ranked by the judge's accuracy, or by gradient_cosine if there is none. Without either, the list holds the
    first such cell; it is empty if no guided cell has tensors.
    """
    by = next((name for name in ("judge", "gradient_cosine") if name in report.cells), None)
    kept = (ds["written"] >= 3).any(("sample", "timestep")).compute()
    rows, dims = report.cells[report.cells["guidance_scale"] > 0], list(cell_dims(ds))
    cells = rows[dims].to_dict("records")
    rows = rows[np.array([bool(kept.isel(place(ds, cell))) for cell in cells], dtype=bool)]
    if by is None or not rows[by].notna().any():
        return rows[dims].head(1).to_dict("records")
    ends = dict.fromkeys((rows[by].idxmin(), rows[by].idxmax()))
    return rows.loc[list(ends), dims].to_dict("records")


def example_sample(ds: xr.Dataset, cells: list[Cell]) -> int:
    """The first sample with tensors that the judge has wrong in the first cell and right in the last.

    If there is no such sample: the first sample with tensors.
    """
    parts = [ds.isel(place(ds, cell)) for cell in cells]
    kept = np.logical_and.reduce([(part["written"] >= 3).any("timestep").values for part in parts])
    contrasting = kept
    if "judge_prediction" in ds:
        wrong, right = parts[0]["judge_prediction"] != ds["label"], parts[-1]["judge_prediction"] == ds["label"]
        contrasting = kept & wrong.values & right.values
    return int(ds["sample"].values[(contrasting if contrasting.any() else kept).argmax()])


def _figures(report: Report, ds: xr.Dataset) -> dict[str, list[_Figure]]:
    """The figures of each section."""
    out: dict[str, list[_Figure]] = {"cells": [], "effects": [], "curves": [], "trajectories": []}
    script = True
    for i, (section, figure, title, caption) in enumerate(_drawn(report, ds)):
        html = figure.to_html(
            full_html=False, include_plotlyjs=script, config=dict(plots.PLOTLY_CONFIG), div_id=f"figure-{i}"
        )
        script = False
        out[section].append(_Figure(Markup(html), title, caption))
    return out


def _drawn(report: Report, ds: xr.Dataset) -> Iterator[tuple[str, go.Figure, str, str]]:
    """Section, figure, title and caption of each figure."""
    ends = worst_and_best(report, ds)
    if {"judge", "own"} & set(report.cells):
        yield "cells", plots.accuracy(ds), "Accuracy", (
            "Bars: share of a cell's finished samples in which the judge, or the guide itself (own), sees the target "
            "class, with Wilson's 95 % interval."
        )  # fmt: skip
    if "confusion" in ds:
        for cell, kind in zip(ends, ("lowest", "highest"), strict=False):
            yield "cells", plots.confusion(ds, cell), f"Confusion: {plots.cell_name(cell)}", (
                f"The class that the judge sees in each sample, in the cell with its {kind} accuracy. Numbers count "
                "samples."
            )  # fmt: skip
    if report.comparisons["accuracy"].notna().any():
        yield "effects", plots.draw_effects(report.comparisons), "Change of the judge's accuracy", (
            "Paired over samples, with a 95 % interval. If the interval includes 0, the sign is undecided."
        )  # fmt: skip
    for row in CATALOGUE.values():
        if row.headline and (name := row.name) in ds:
            cut = ", cut off at the end of the axis" if row.logarithmic else ""
            yield "curves", plots.curve(ds, name), name, (
                f"{_sentence(ds[name].attrs.get('long_name', name))}: mean over samples (line), its 95 % interval "
                f"(band), 5 to 95 % of the samples (faint band{cut})."
            )  # fmt: skip
    if ends and set(_TENSORS) & set(ds) and not why_not_drawn(ds):
        sample = example_sample(ds, ends)
        target = dict(enumerate(class_names(ds))).get(label := int(ds["label"].sel(sample=sample)), label)
        yield "trajectories", plots.trajectories(ds, ends, sample), f"Sample {sample}, target class {target}", (
            "The first sample that the judge has wrong in one cell and right in the other, if there is one. Both cells "
            f"start from the same noise. {_HOW_DRAWN[sample_kind(sample_dims(ds)).name]}"
        )  # fmt: skip


def _cells(report: Report) -> dict[str, Any]:
    """The table of cells and, if necessary, a second one: heads, rows and the row of floors."""
    columns = [name for name in _results(report) if not name.endswith(("_low", "_high"))]
    if "nonfinite_steps" in columns and not report.cells["nonfinite_steps"].any():
        columns.remove("nonfinite_steps")
    further = [name for name in columns if name.startswith(_FURTHER)]
    return {
        "main": _table(report, [name for name in columns if name not in further]),
        "further": _table(report, further) if further else None,
    }


def _dims(report: Report) -> list[str]:
    """Columns with the names of the cell: those before `samples`."""
    return [str(name) for name in report.cells.columns[: report.cells.columns.get_loc("samples")]]


def _results(report: Report) -> list[str]:
    return [str(name) for name in report.cells if name not in _dims(report)]


def _table(report: Report, columns: list[str]) -> dict[str, Any]:
    rows = []
    for row in report.cells.to_dict("records"):
        found = [f for f in report.findings if all(row[dim] == value for dim, value in f.cell.items())]
        rows.append({"cell": row, "findings": found, "values": [_value(row, name) for name in columns]})
    floors = [_value(report.floors, name) if name in report.floors else _Value("") for name in columns]
    return {
        "dims": _dims(report),
        "heads": [_HEADS.get(name, name).replace("_", " ") for name in [*_dims(report), *columns]],
        "rows": rows,
        "floors": floors if set(columns) & set(report.floors) else [],
    }


def _comparisons(table: pd.DataFrame) -> dict[str, Any]:
    distances = [name for name in table if f"{name}_low" in table and name != "accuracy"]
    numbers = {"n": "N", "accuracy": "change of accuracy", "cohens_g": "Cohen's g", "p_holm": "Holm's p"}
    numbers |= {name: f"change of {name}" for name in distances}
    rows = [
        {"row": row, "values": [_value(row, name, signed=name not in ("n", "p_holm")) for name in numbers]}
        for row in table[table[["accuracy", *distances]].notna().any(axis=1)].to_dict("records")
    ]
    notes = table["note"].unique().tolist()
    return {"heads": list(numbers.values()), "rows": rows, "note": notes[0] if len(notes) == 1 else None}


def _value(row: dict[str, Any], name: str, signed: bool = False) -> _Value:
    value = float(row[name])
    if np.isnan(value):
        return _Value("-")
    if name in _COUNTS:
        return _Value(f"{value:.0f}")
    if name == "p_holm":
        return _Value("< 0.001" if value < 0.001 else f"{value:.3f}")
    digits = (
        3 if name == "accuracy" or name.startswith(KERNEL_DISTANCES) or name.endswith(("cosine", "strength")) else 2
    )
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    low, high = (float(row.get(f"{name}_{end}", np.nan)) for end in ("low", "high"))
    bounds = ["-" if np.isnan(bound) else form.format(bound) for bound in (low, high)]
    interval = f"[{', '.join(bounds)}]" if bounds != ["-", "-"] else ""
    return _Value(form.format(value), interval, sure=signed and (low > 0 or high < 0))


def _prose(text: str) -> Markup:
    """Escaped text, with code for everything between backticks."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _names(ds: xr.Dataset, dim: str) -> list[str]:
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in ds[dim].values.tolist()]
