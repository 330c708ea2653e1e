"""Guidance: the parts of classifier-free guidance, along and across the conditional prediction, by cell and along t."""

import dash_mantine_components as dmc
import xarray as xr
from dash import Dash, Input, Output, html

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.state import State
from dashboards.widgets.controls import CellNumbers, LabelText, cells_select, class_select, control_id
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.grid import Column, Row, height_of, interval_column, number_column, table, text_column
from dashboards.widgets.links import VERSION, VIEW, View, shown_state, trajectory_state
from dashboards.widgets.messages import empty
from gradscope.analysis.by_class import of_class
from gradscope.analysis.cells import cell_name
from gradscope.analysis.classifier_free import CHANGE, NEEDS, PARALLEL, PERPENDICULAR, SHARE, parts_table
from gradscope.analysis.missing import absent
from gradscope.store.dims import cell_dims

TITLE = "Guidance"
SHOWN = 6
"""Rows of the table that are seen without scrolling."""
_ABOUT = (
    "The gradient of classifier-free guidance is -(eps_cond - eps_uncond) / noise. Its part along the conditional "
    "x0-hat changes contrast and saturates pictures (arXiv 2410.02416); the part across it changes what is seen."
)
_OVER_T = "mean over t, interval over samples"


def missing(run: OpenRun) -> str:
    """Why there is nothing to show; empty if there is."""
    reasons = [reason for name in NEEDS if (reason := absent(run.ds, name))]
    if reasons and run.ds.attrs.get("guidance_kind") != "classifier_free":
        return f"{run.path.name} is not of classifier-free guidance"
    return reasons[0] if reasons else ""


def layout(run: OpenRun, state: State):
    if reason := missing(run):
        return empty(reason)
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.P(_ABOUT, className="caption"),
            table(
                "guidance-rows", columns(run), table_rows(run, state), "parts of the guidance, by cell",
                height=height_of(len(run.cells), SHOWN),
            ),
            html.Div(
                [cells_select(run, state.cells, "cells of the figure"), class_select(run, state.label)],
                className="controls",
            ),
            slot("guidance-parts"),
        ],
        className="guidance",
    )  # fmt: skip


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""
    label_input = Input(control_id("label"), "value")

    @app.callback(Output("guidance-rows", "rowData"), label_input, VERSION, VIEW, prevent_initial_call=True)
    def rows(label: LabelText, version: str | None, view: View | None):
        run, state = shown_state(library, view)
        return table_rows(run, state.to("guidance", label=label))

    @app.callback(*slot_outputs("guidance-parts"), Input(control_id("cells"), "value"), label_input, VERSION, VIEW)
    def parts(cells: CellNumbers, label: LabelText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        if not cells:
            return unfilled("Choose a cell above.")
        call = Call("guidance_parts", {"cells": [dict(run.cell(number)) for number in cells]}, label)
        return filled("guidance-parts", call, run, "Parts of the gradient, means with 95 % intervals over samples")


def columns(run: OpenRun) -> list[Column]:
    """The columns that the store has data for."""
    weight = number_column("weight", "scale w", 70, headerTooltip="mean w in u + w (c - u)")
    return [
        text_column("cell", "cell", 200),
        number_column("n", "N", 50, headerTooltip="samples with a gradient"),
        *([weight] if "guidance_weight" in run.ds else []),
        interval_column(PARALLEL, "along [95 %]", 150, headerTooltip=f"norm of the part along x0-hat, {_OVER_T}"),
        interval_column(
            PERPENDICULAR, "across [95 %]", 150, headerTooltip=f"norm of the part across x0-hat, {_OVER_T}"
        ),
        interval_column(
            SHARE, "share along [95 %]", 150, digits=3, headerTooltip=f"|parallel| / |gradient|, {_OVER_T}"
        ),
        interval_column(CHANGE, "change [95 %]", 150, headerTooltip=f"|eps_c - eps_u| / |eps_u|, {_OVER_T}"),
    ]


def table_rows(run: OpenRun, state: State) -> list[Row]:
    """One row for each cell, of the samples of the state's class; a click opens its trajectory."""
    found = run.memo(("parts of guidance", state.label), lambda: parts_table(_of_class(run, state.label)))
    dims = cell_dims(run.ds)
    shown = (PARALLEL, PERPENDICULAR, CHANGE)
    return [
        {
            "id": str(i),
            "cell": cell_name({dim: row[dim] for dim in dims}),
            **{name: None if value != value else value for name, value in row.items() if name not in dims},
            "href": trajectory_state(run, i, shown)
            .to("trajectory", timestep=state.timestep, sample=state.sample, label=state.label)
            .url(),
        }
        for i, row in enumerate(found.to_dict("records"))
    ]


def _of_class(run: OpenRun, label: int | None) -> xr.Dataset:
    ds = run.scalars(*names(run))
    return ds if label is None else of_class(ds, label)


def names(run: OpenRun) -> list[str]:
    """Diagnostics of the table."""
    return [*NEEDS, *(["guidance_weight"] if "guidance_weight" in run.ds else [])]
