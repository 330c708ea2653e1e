"""One cursor, of cell, timestep and sample, through maps, curves and numbers.

The browser moves it (assets/trajectory.js): a step asks the server for nothing but one picture, which holds the maps of
all cells. Another sample or cell asks for curves and numbers anew, once the cursor rests.
"""

from typing import Annotated

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, State, dcc, html, no_update
from pydantic import BaseModel, Field

from dashboards.data.library import Library, Recorded
from dashboards.pages.trajectory.data import DIVERGING, TENSORS, described, readable, trajectory, unit
from dashboards.pages.trajectory.figures import CURVE, PLACES, exhibits, without_belief
from dashboards.state import SHOWN_MOST, VARIABLES_MOST
from dashboards.state import State as View
from dashboards.widgets.controls import (
    cell_select,
    cells_select,
    control,
    empty,
    export_menu,
    figure_frame,
    shown,
    variables_select,
)
from dashboards.widgets.links import View as Shown
from dashboards.widgets.links import came_from

TITLE = "Trajectory"
KEYS = {
    "← →": "previous, next step",
    "Shift ← →": "ten steps",
    "Home End": "first, last step",
    "↑ ↓": "previous, next sample",
    "[ ]": "previous, next cell of those shown",
    "Space": "play, pause",
    "?": "this list",
}

Number = Annotated[int, Field(ge=0)]


class At(BaseModel, extra="forbid"):
    """Where the cursor rests, but for the timestep, and what is shown there."""

    cell: Number
    sample: Number
    cells: Annotated[list[Number], Field(max_length=SHOWN_MOST, fail_fast=True)]
    variables: Annotated[list[str], Field(max_length=VARIABLES_MOST, fail_fast=True)]


def layout(run: Recorded, view: View):
    about = described(run, view)
    at = about["at"]
    return html.Div(
        [
            html.H1(TITLE, className="unseen"),
            html.Div([_choices(run, view, at["cells"]), _scrubber()], className="cursor-bar"),
            html.Div([_grid(), _focus(run)], id="maps", className="maps"),
            html.Div(
                [html.Div(figure_frame(place, CURVE), id=f"of-{place}", hidden=True) for place in PLACES],
                id="curves",
                className="curves",
            ),
            empty(without_belief(run)) if without_belief(run) else None,
            _keys(),
            dcc.Store(id="trajectory-run", data=about),
            dcc.Store(id="trajectory-at", data={key: at[key] for key in ("cell", "sample", "cells", "variables")}),
            *[dcc.Store(id=f"trajectory-{name}") for name in ("numbers", "chosen", "told", "grown")],
        ],
        id="trajectory",
        className="trajectory",
    )


def register(app: Dash, library: Library) -> None:
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "chosen"),
        Output("trajectory-chosen", "data"),
        Input("trajectory-run", "data"),
        *[Input(control(key), "value") for key in ("cell", "sample", "cells", "variables", "limits")],
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "numbers"),
        Output("trajectory-told", "data"),
        Input("trajectory-numbers", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "grown"),
        Output("trajectory-grown", "data"),
        Input("version", "data"),
        prevent_initial_call=True,
    )

    @app.callback(
        Output("trajectory-numbers", "data"),
        Input("trajectory-at", "data"),
        Input("version", "data"),
        State("view", "data"),
    )
    def numbers(at: At, version: str | None, view: Shown | None):
        return trajectory(came_from(library, view)[0], at.cell, at.sample)

    for place in PLACES:
        _drawn(app, library, place)


def _drawn(app: Dash, library: Library, place: str) -> None:
    """One figure, drawn anew in its place: several at once would keep the browser from following the cursor."""

    @app.callback(
        Output(f"of-{place}", "hidden"),
        Output(f"title-{place}", "children"),
        Output(f"caption-{place}", "children"),
        Output(f"menu-{place}", "children"),
        Output(place, "figure"),
        Output(place, "style"),
        Input("trajectory-at", "data"),
        Input("version", "data"),
        State("view", "data"),
    )
    def draw(at: At, version: str | None, view: Shown | None):
        run = came_from(library, view)[0]
        if (told := exhibits(run, **dict(at)).get(place)) is None:
            return True, *[no_update] * 5
        call, title, caption, height = told
        figure = shown(call, run, legend=False)
        figure["layout"]["uirevision"] = call.arguments.get("name")  # the part that was zoomed into stays
        return False, title, caption, export_menu(call, run, place), figure, {"height": f"{height}px"}


def _choices(run: Recorded, view: View, cells: list[int]):
    last = run.ds.sizes["sample"] - 1
    return html.Div(
        [
            cell_select(run, "cell", view.cell, "cell"),
            dmc.NumberInput(
                id=control("sample"),
                label=f"sample, 0 to {last}",
                value=view.sample,
                min=0,
                max=last,
                allowDecimal=False,
                clampBehavior="strict",
                size="xs",
            ),
            dmc.SegmentedControl(
                id=control("limits"),
                data=[
                    {"value": "shared", "label": "limits shared by cells"},
                    {"value": "cell", "label": "each cell's own"},
                ],
                value=view.limits,
                size="xs",
            ),
            html.Details(
                [
                    html.Summary("cells and diagnostics"),
                    html.Div(
                        [cells_select(run, cells), variables_select(run, view.variables)], className="shown-items"
                    ),
                ],
                className="shown-choice",
            ),
        ],
        className="choices",
    )


def _scrubber():
    """Where assets/trajectory.js puts the slider."""
    return html.Div(
        [
            html.Button(id="play", type="button", title="Space", **{"aria-label": "play", "aria-pressed": "false"}),
            html.Div(id="scrubber"),
            html.Div(id="where"),
            html.Button("?", id="keys-button", type="button", title="keys", **{"aria-label": "keys"}),
        ],
        className="scrubber",
    )


def _grid():
    """Where assets/maps.js puts the maps of all cells."""
    return html.Section(
        [
            html.Div(id="cells", className="cells"),
            html.P(id="maps-note", className="caption"),
            html.P(id="nonfinite", className="caption", hidden=True),
        ],
        className="grid",
        **{"aria-label": "maps of all cells"},
    )


def _focus(run: Recorded):
    """The focused cell: larger maps, and the numbers at the cursor."""
    return html.Section(
        [
            html.H2(id="focus-name", className="card-title"),
            html.Div([_map(run, name) for name in run.tensors], className="focus-maps"),
            html.Dl([_number(run, name) for name in readable(run)], id="readout", className="readout"),
        ],
        id="focus",
        className="focus",
        **{"aria-label": "focused cell"},
    )


def _map(run: Recorded, name: str):
    label, unit_of = TENSORS[name], unit(run, name)
    scale = "diverging" if name in DIVERGING else "grey"
    about = f"{name}, mean over channels" if name in DIVERGING else name
    return html.Figure(
        [
            html.Figcaption(f"{label} [{unit_of}]" if unit_of else label, title=about),
            html.Div(className="map", role="img", **{"data-tensor": name, "aria-label": label}),
            html.Div(className=f"colour-bar {scale}"),
            html.Div([html.Span(className=which) for which in ("low", "middle", "high")], className="bar-ends"),
            html.Div(className="norm"),
        ]
    )


def _number(run: Recorded, name: str):
    about = run.ds[name].attrs.get("long_name", name)
    return html.Div(
        [html.Dt(name, title=about), html.Dd([html.Span(**{"data-variable": name}), html.Small(unit(run, name))])]
    )


def _keys():
    return html.Dialog(
        [
            html.H2("Keys", className="card-title"),
            html.Dl(
                [html.Div([html.Dt(html.Kbd(key)), html.Dd(about)]) for key, about in KEYS.items()], className="keys"
            ),
            html.Button("close", type="button"),
        ],
        id="keys",
        **{"aria-label": "keys"},
    )
