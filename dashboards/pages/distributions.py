"""Distributions: a diagnostic over samples along t, and the gradients of one cell over elements and frequencies."""

import dash_mantine_components as dmc
from dash import Dash, Input, html

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.state import PAGE_MAX, State
from dashboards.widgets.controls import (
    CellNumbers,
    LabelText,
    NumberText,
    cell_select,
    cells_select,
    class_select,
    control_id,
    variable_select,
)
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.messages import no_diagnostic, why_no_diagnostic

TITLE = "Distributions"
MOST = PAGE_MAX["cells"]["distributions"]
"""Cells whose ridgelines can be distinguished."""
OF_TENSORS = {"magnitudes": "Gradient magnitudes", "spectrum": "Gradient spectrum"}
"""Figures of the gradients of one cell, with their titles."""
ID = {figure: f"distributions-{figure}" for figure in ("ridgelines", *OF_TENSORS)}
"""Id of each figure's graph."""


missing = why_no_diagnostic


def layout(run: OpenRun, state: State):
    """Controls, and slots for the figures: those of tensors take a moment."""
    if not state.variables:
        return no_diagnostic(run)
    cells = cells_select(run, state.cells[:MOST], f"cells of the ridgelines, at most {MOST}", most=MOST)
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    variable_select(run, state.variables, "diagnostic"),
                    html.Div(cells, className="distributions-cells"),
                    cell_select(run, "cell", state.cell, "cell of the gradients"),
                    class_select(run, state.label),
                ],
                className="controls",
            ),
            html.Div([slot(ID[name]) for name in ID], className="distributions"),
        ]
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""

    @app.callback(
        *slot_outputs(ID["ridgelines"]),
        Input(control_id("cells"), "value"),
        Input(control_id("variables"), "value"),
        Input(control_id("label"), "value"),
        VERSION,
        VIEW,
    )
    def ridgelines(cells: CellNumbers, name: str, label: LabelText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        if not cells:
            return unfilled("Choose a cell above.")
        call = Call("ridgelines", {"name": name, "cells": [dict(run.cell(number)) for number in cells]}, label)
        return filled(ID["ridgelines"], call, run, f"{name} over samples")

    for figure in OF_TENSORS:
        _register_figure_of_tensors(app, library, figure)


def _register_figure_of_tensors(app: Dash, library: Library, figure: str) -> None:
    @app.callback(
        *slot_outputs(ID[figure]),
        Input(control_id("cell"), "value"),
        Input(control_id("label"), "value"),
        VERSION,
        VIEW,
    )
    def draw(cell: NumberText, label: LabelText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        call = Call(figure, {"cell": dict(run.cell(cell))}, label)
        return filled(ID[figure], call, run, OF_TENSORS[figure])
