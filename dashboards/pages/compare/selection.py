"""The samples that are selected on the Compare page, with brush or keyboard, and their images in both cells."""

from typing import Annotated

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, html
from pydantic import Field

from dashboards.data.library import Library, Recorded
from dashboards.state import State as View
from dashboards.widgets.controls import NumberText, control, name_of
from dashboards.widgets.links import View as Shown
from dashboards.widgets.links import came_from
from dashboards.widgets.thumbnails import tiles
from dashboards.widgets.verdicts import verdicts
from gradscope.analysis.contents import place

MOST = 32
"""So many samples' images are shown."""
Samples = Annotated[list[NumberText], Field(fail_fast=True)]


def layout(run: Recorded):
    """The list of samples, in step with the brush, and room for their images."""
    picked = dmc.MultiSelect(
        id="compare-samples",
        label="selected samples",
        data=[str(sample) for sample in run.ds["sample"].values],
        value=[],
        searchable=True,
        hidePickedOptions=True,
        limit=50,
        size="xs",
        placeholder="type a number, or draw a box in the scatter",
    )
    return html.Div(
        [
            html.Div(
                [
                    html.Div(picked, className="compare-picked"),
                    dmc.Button("clear selection", id="compare-clear", size="xs", variant="default"),
                ],
                className="controls",
            ),
            html.Div(id="compare-selected", className="compare-selected"),
        ],
        className="compare-selection",
    )


def register(app: Dash, library: Library) -> None:
    """The list follows the brush; the scatter and the images follow the list."""
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "brushed"),
        Output("compare-samples", "value"),
        Input("compare-pairs", "selectedData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "clear"),
        Output("compare-samples", "value", allow_duplicate=True),
        Output("compare-pairs", "selectedData"),
        Input("compare-clear", "n_clicks"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "mark"),
        Input("compare-samples", "value"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("compare-selected", "children"),
        Input("compare-samples", "value"),
        Input(control("cell"), "value"),
        Input(control("other"), "value"),
        Input("version", "data"),
        State(control("variables"), "value"),
        State("view", "data"),
    )
    def show(
        samples: Samples,
        first: NumberText,
        second: NumberText,
        version: str | None,
        name: str,
        view: Shown | None,
    ):
        run, state = came_from(library, view)
        cells = first, second
        if not samples:
            return None
        chosen = sorted(samples)
        rows = [
            _row(run, state.to("trajectory", cell=cell, cells=tuple(sorted(cells)), variables=(name,)), chosen[:MOST])
            for cell in cells
        ]
        if len(chosen) > MOST:
            rows.append(html.P(f"The first {MOST} of {len(chosen)} selected samples.", className="caption"))
        return rows


def _row(run: Recorded, state: View, chosen: list[int]):
    """The samples' images in the cell of a cursor view, each the way there."""
    ds = run.scalars("finite_fraction") if "finite_fraction" in run.ds else run.scalars("written")
    table = verdicts(ds.isel(place(ds, run.cell(state.cell))))
    shown = tiles(run, table[table["sample"].isin(chosen)], state)
    return html.Div([html.H3(name_of(run, state.cell)), html.Div(shown, className="thumbs")])
