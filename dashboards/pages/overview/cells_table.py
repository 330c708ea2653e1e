"""The table of cells: did guidance work, how did the gradients behave, what was found."""

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from dashboards.data.library import Recorded
from dashboards.state import State
from dashboards.widgets.grid import Column, Row, badges, interval, marked, number, words
from dashboards.widgets.links import into
from gradscope.analysis import summary
from gradscope.analysis.cells import place
from gradscope.analysis.findings import Finding
from gradscope.analysis.verdicts import class_names
from gradscope.plots.style import cell_name

NEEDS = ("gradient_cosine", "effective_strength", "finite_fraction")
"""Diagnostics along t that the rows are made of."""


def cell_columns(ds: xr.Dataset) -> list[Column]:
    """Columns for what a store holds."""
    verdicts = [
        interval(
            who, f"{who} [95 %]", 130, digits=2, headerTooltip=f"share of samples in which {about} sees the target"
        )
        for who, about in (("own", "its guide"), ("judge", "the judge"))
        if f"{who}_prediction" in ds
    ]
    by_class = words("by_class", "judge, by class", 150, headerTooltip=", ".join(map(str, class_names(ds))))
    behaviour = [
        number(name, title, 104, "digits(params.value, 3)", headerTooltip=f"mean {name} over samples and timesteps")
        for name, title in (("gradient_cosine", "mean cosine"), ("effective_strength", "strength"))
        if name in ds
    ]
    return [
        words("cell", "cell", 190),
        number("samples", "N", 56, headerTooltip="finished samples"),
        *verdicts,
        *([by_class] if "judge_prediction" in ds else []),
        *behaviour,
        badges("findings", "findings", 280),
    ]


def found_in(run: Recorded, findings: Iterable[Finding]) -> dict[str, str]:
    """What was found in each cell, by its row's id, as `dashboards.widgets.grid.badges` shows it."""
    told: dict[str, list[str]] = {}
    for finding in findings:
        told.setdefault(str(run.cells.index(finding.cell)), []).append(marked(finding.severity, finding.signature))
    return {id: ", ".join(texts) for id, texts in told.items()}


def cell_rows(run: Recorded, state: State, found: Mapping[str, str]) -> list[Row]:
    """One row a cell, in the order of `Recorded.cells`; each leads to that cell under the cursor."""
    rows = run.memo("rows of cells", lambda: _measured(run))
    return [
        row
        | {
            "findings": found.get(row["id"], ""),
            "href": into(run, i).to("trajectory", timestep=state.timestep, sample=state.sample).url(),
        }
        for i, row in enumerate(rows)
    ]


def _measured(run: Recorded) -> list[dict]:
    ds = run.scalars("written", *(name for name in NEEDS if name in run.ds))
    if "finite_fraction" not in ds:
        ds = ds.assign(finite_fraction=xr.ones_like(ds["written"], dtype=float))
    found = summary(ds)
    return [_row(found.isel(place(found, cell)), i, cell_name(cell)) for i, cell in enumerate(run.cells)]


def _row(cell: xr.Dataset, i: int, name: str) -> dict:
    row = {"id": str(i), "cell": name, "samples": int(cell["samples"])}
    for who in ("own", "judge"):
        if f"{who}_accuracy" in cell:
            low, high = cell[f"{who}_interval"].values
            row |= {who: _known(cell[f"{who}_accuracy"]), f"{who}_low": _known(low), f"{who}_high": _known(high)}
    if "class_accuracy" in cell:
        shares = cell["class_accuracy"].values
        row["by_class"] = "  ".join("–" if np.isnan(share) else f"{share:.2f}" for share in shares)
    return row | {name: _known(cell[name]) for name in ("gradient_cosine", "effective_strength") if name in cell}


def _known(value: xr.DataArray | float) -> float | None:
    return float(value) if np.isfinite(value) else None
