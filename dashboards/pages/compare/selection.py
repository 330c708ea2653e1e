"""Selected samples of the Compare page, by brush or by keyboard, with their thumbnails in both cells."""

from typing import Annotated

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, html
from pydantic import Field

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.compare.shown import compared
from dashboards.state import State
from dashboards.widgets.controls import LabelText, NumberText, control_id
from dashboards.widgets.drawn_as import how_drawn, kind_data, tile_style
from dashboards.widgets.links import VERSION, VIEW, View
from dashboards.widgets.thumbnails import thumbnails
from dashboards.widgets.verdicts import verdicts
from gradscope.analysis.cells import cell_name, place

MOST = 32
"""Selected samples whose thumbnails are shown."""
Samples = Annotated[list[NumberText], Field(fail_fast=True)]
"""Value of the select of samples."""


def layout(run: OpenRun):
    """A select of samples, which follows the brush, and room for their thumbnails."""
    select = dmc.MultiSelect(
        id="compare-samples",
        label="selected samples",
        data=[str(sample) for sample in run.ds["sample"].values],
        value=[],
        searchable=True,
        hidePickedOptions=True,
        limit=50,
        size="xs",
        placeholder="type a number, or draw a box in the scatter plot",
    )
    return html.Div(
        [
            html.Div(
                [
                    html.Div(select, className="compare-picked"),
                    dmc.Button("clear selection", id="compare-clear", size="xs", variant="default"),
                ],
                className="controls",
            ),
            html.Div(id="compare-selected", className="compare-selected"),
        ],
        className="compare-selection",
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks: the select follows the brush; scatter plot and thumbnails follow the select."""
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
        Input(control_id("cell"), "value"),
        Input(control_id("other"), "value"),
        Input(control_id("label"), "value"),
        VERSION,
        dash.State(control_id("variables"), "value"),
        VIEW,
    )
    def show(
        samples: Samples,
        first: NumberText,
        second: NumberText,
        label: LabelText,
        version: str | None,
        name: str,
        view: View | None,
    ):
        shown = compared(library, view, first, second, label)
        if not samples:
            return None
        chosen = shown.partners(sorted(samples))
        if not chosen:
            return html.P("Samples of the two stores are not pairs.", className="caption")
        run, rows = shown.run, []
        for side, (store, number) in enumerate(((run, first), (shown.other, second))):
            target = shown.trajectory(store, number, (first, second), name)
            pictures = _thumbnails(store, target, [pair[side] for pair in chosen[:MOST]])
            thumbs = html.Div(pictures, className="thumbs", style=tile_style(store), **kind_data(store))
            rows.append(html.Div([html.H3(cell_name(store.cell(number))), thumbs]))
        rows.append(how_drawn(run))
        if len(samples) > MOST:
            rows.append(html.P(f"The first {MOST} of {len(samples)} selected samples.", className="caption"))
        return rows


def _thumbnails(run: OpenRun, state: State, samples: list[int]) -> list[html.A]:
    """Thumbnails of the samples in the cell of a trajectory's state."""
    ds = run.scalars("finite_fraction") if "finite_fraction" in run.ds else run.scalars("written")
    table = verdicts(ds.isel(place(ds, run.cell(state.cell))))
    return thumbnails(run, table[table["sample"].isin(samples)], state)
