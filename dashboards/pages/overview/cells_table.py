"""The table of cells: accuracy of guide and judge, behaviour of the gradients, and findings."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from dashboards.data.open_run import OpenRun
from dashboards.state import State
from dashboards.widgets.grid import Column, Row, badge, badge_column, interval_column, number_column, text_column
from dashboards.widgets.links import trajectory_state
from dashboards.widgets.verdicts import NAMES
from gradscope.analysis import summary
from gradscope.analysis.by_class import of_class
from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.findings import Finding
from gradscope.analysis.verdicts import class_names
from gradscope.plots.unguided import shared

NEEDS = ("gradient_cosine", "effective_strength", "finite_fraction")
"""Diagnostics along t that the rows need."""


def cell_columns(ds: xr.Dataset) -> list[Column]:
    """The columns that the store has data for."""
    accuracies = [
        interval_column(
            who, f"{name} [95 %]", 130, digits=2, headerTooltip=f"share of samples in which the {name} sees the target"
        )
        for who, name in NAMES.items()
        if f"{who}_prediction" in ds
    ]
    classes = ", ".join(map(str, class_names(ds)))
    by_class = text_column("by_class", "judge, by class", 136, headerTooltip=classes, wrapText=True, autoHeight=True)
    means = [
        number_column(name, title, 104, "digits(params.value, 3)", headerTooltip=f"mean {name} over samples and t")
        for name, title in (("gradient_cosine", "mean cosine"), ("effective_strength", "strength"))
        if name in ds
    ]
    return [
        text_column("cell", "cell", 216),
        number_column("samples", "N", 56, headerTooltip="finished samples"),
        *accuracies,
        *([by_class] if "judge_prediction" in ds else []),
        *means,
        badge_column("findings", "findings", 280, autoHeight=True),
    ]


def cell_badges(run: OpenRun, findings: Iterable[Finding]) -> dict[str, str]:
    """The findings of each cell as text of `dashboards.widgets.grid.badge_column`, by the id of its row."""
    badges: dict[str, list[str]] = {}
    for finding in findings:
        badges.setdefault(str(run.cells.index(finding.cell)), []).append(badge(finding.severity, finding.signature))
    return {id: ", ".join(texts) for id, texts in badges.items()}


def cell_rows(run: OpenRun, state: State, badges: Mapping[str, str], label: int | None = None) -> list[Row]:
    """One row for each cell, in the order of `OpenRun.cells`; a click opens its trajectory at the cursor.

    Unguided cells with the same numbers are one row, whose ``cells`` are their numbers.

    Parameters
    ----------
    badges
        Of `cell_badges`.
    label
        The target class whose samples are counted; None for all.
    """
    rows = run.memo(("rows of cells", label), lambda: _measured(run, label))
    return [
        row
        | {
            "findings": ", ".join(dict.fromkeys(filter(None, (badges.get(str(i), "") for i in row["cells"])))),
            "href": trajectory_state(run, row["cells"][0])
            .to("trajectory", timestep=state.timestep, sample=state.sample, label=label)
            .url(),
        }
        for row in rows
    ]


def _measured(run: OpenRun, label: int | None) -> list[dict]:
    ds = run.scalars("written", *(name for name in NEEDS if name in run.ds))
    ds = ds if label is None else of_class(ds, label)
    if "finite_fraction" not in ds:
        ds = ds.assign(finite_fraction=xr.ones_like(ds["written"], dtype=float))
    cells = summary(ds)
    rows: dict[tuple, list[dict]] = {}
    for i, cell in enumerate(run.cells):
        numbers = _numbers(cells.isel(place(cells, cell)))
        known = numbers["samples"] and any(v is not None for name, v in numbers.items() if name != "samples")
        key = tuple(numbers.items()) if known and not cell["guidance_scale"] else (i,)
        rows.setdefault(key, []).append({"number": i, **numbers})
    found = []
    for group in rows.values():
        same = [row.pop("number") for row in group]
        name = cell_name(shared([run.cells[i] for i in same]))
        found.append({"id": str(same[0]), "cell": name, "cells": same, **group[0]})
    return found


def _numbers(cell: xr.Dataset) -> dict[str, Any]:
    row: dict[str, Any] = {"samples": int(cell["samples"])}
    for who in NAMES:
        if f"{who}_accuracy" in cell:
            low, high = cell[f"{who}_accuracy_interval"].values
            row |= {who: _finite(cell[f"{who}_accuracy"]), f"{who}_low": _finite(low), f"{who}_high": _finite(high)}
    if "class_accuracy" in cell:
        shares = cell["class_accuracy"].values
        row["by_class"] = "  ".join("–" if np.isnan(share) else f"{share:.2f}" for share in shares)
    return row | {name: _finite(cell[name]) for name in ("gradient_cosine", "effective_strength") if name in cell}


def _finite(value: xr.DataArray | float) -> float | None:
    return float(value) if np.isfinite(value) else None
