"""Distributions: a diagnostic over samples along t, and the gradients of one cell over elements and frequencies."""

import dash_mantine_components as dmc
from dash import Dash, Input, State, html

from dashboards.data.library import Library, Recorded
from dashboards.state import State as View
from dashboards.widgets import controls as components
from dashboards.widgets.controls import CellNumbers, NumberText, control
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import closed, filled, outputs, place
from dashboards.widgets.links import View as Shown
from dashboards.widgets.links import came_from

TITLE = "Distributions"
MOST = 4
"""Cells whose ridges can be told apart."""
OF_TENSORS = {"magnitudes": "Gradient magnitudes", "spectrum": "Gradient spectrum"}
"""Figures of one cell, and their titles."""
ID = {figure: f"distributions-{figure}" for figure in ("ridgelines", *OF_TENSORS)}
"""Of each figure on this page."""


def layout(run: Recorded, state: View):
    """Controls; the figures follow by callback, since those of tensors take a moment."""
    if not state.variables:
        return components.empty(f"{run.path.name} has no diagnostic along t: add norms, cosines or belief to `probes`")
    cells = components.cells_select(run, state.cells[:MOST], f"cells of the ridgelines, at most {MOST}", most=MOST)
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    components.variables_select(run, state.variables, "diagnostic", most=1),
                    html.Div(cells, className="distributions-cells"),
                    components.cell_select(run, "cell", state.cell, "cell of the gradients"),
                ],
                className="controls",
            ),
            html.Div([place(ID[name]) for name in ID], className="distributions"),
        ]
    )


def register(app: Dash, library: Library) -> None:
    """Callbacks of the page."""

    @app.callback(
        *outputs(ID["ridgelines"]),
        Input(control("cells"), "value"),
        Input(control("variables"), "value"),
        Input("version", "data"),
        State("view", "data"),
    )
    def ridgelines(numbers: CellNumbers, name: str, version: str | None, view: Shown | None):
        run, _ = came_from(library, view)
        if not numbers:
            return closed("Choose a cell above.")
        call = Call("ridgelines", {"name": name, "cells": [dict(run.cell(number)) for number in numbers]})
        return filled(ID["ridgelines"], call, run, f"{name} over samples")

    for figure in OF_TENSORS:
        _from_tensors(app, library, figure)


def _from_tensors(app: Dash, library: Library, figure: str) -> None:
    """A figure of the gradients of one cell, or why there is none."""

    @app.callback(
        *outputs(ID[figure]),
        Input(control("cell"), "value"),
        Input("version", "data"),
        State("view", "data"),
    )
    def show(number: NumberText, version: str | None, view: Shown | None):
        run, _ = came_from(library, view)
        call = Call(figure, {"cell": dict(run.cell(number))})
        return filled(ID[figure], call, run, OF_TENSORS[figure])
