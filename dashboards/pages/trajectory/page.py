"""Trajectory: one cursor of cell, timestep and sample through maps, curves and numbers.

The browser moves the cursor (assets/trajectory.js). A step requests one picture with the maps of all cells. Another
sample or cell requests curves and numbers once the cursor rests.
"""

from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Annotated, Any, TypeVar

import dash
import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, dcc, html, no_update
from pydantic import BaseModel, Field

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.trajectory.banner import banner, span
from dashboards.pages.trajectory.browser_data import description, sample_numbers
from dashboards.pages.trajectory.figures import (
    HEIGHT,
    ON_EVERY_PAGE,
    PATH,
    CursorFigure,
    figures,
    why_no_belief,
)
from dashboards.pages.trajectory.focus import focus, map_switches
from dashboards.state import CELLS_MAX, VARIABLES_MAX, State
from dashboards.widgets import messages
from dashboards.widgets.controls import LabelText, cell_select, cells_select, class_select, control_id, variables_select
from dashboards.widgets.drawn_as import how_drawn, kind_data, tile_style
from dashboards.widgets.figure_card import empty_card, export_menu, page_figure
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.map_export import map_menu
from gradscope.errors import GradscopeError

T = TypeVar("T")
TITLE = "Trajectory"
CURSOR = Input("trajectory-cursor", "data")
KEYS = {
    "← →": "previous, next step",
    "Shift ← →": "ten steps",
    "Home End": "first, last step",
    "↑ ↓": "previous, next sample",
    "[ ]": "previous, next shown cell",
    "z": "enlarge a map of the focused cell; then ← → ↑ ↓ move over its pixels, Page Up and Down along t",
    "Space": "play, pause",
    "?": "this list",
}
_HIDDEN = (True, *[no_update] * 5)
"""What `_filled` gives where there is no figure."""
_STORES = ("numbers", "moved", "numbers-shown", "refreshed", "span", "span-shown")
Number = Annotated[int, Field(ge=0)]


Key = Annotated[str, Field(max_length=64)]
"""Key of a finding, or an empty text."""


class Cursor(BaseModel, extra="forbid"):
    """The cursor at rest, without its timestep: content of the dcc.Store ``trajectory-cursor``."""

    cell: Number
    sample: Number
    cells: Annotated[list[Number], Field(max_length=CELLS_MAX, fail_fast=True)]
    variables: Annotated[list[str], Field(max_length=VARIABLES_MAX, fail_fast=True)]


def layout(run: OpenRun, state: State):
    about = description(run, state)
    at = about["at"]
    return html.Div(
        [
            html.H1(TITLE, className="unseen"),
            html.Div([_controls(run, state, at["cells"]), _scrubber()], className="cursor-bar"),
            html.Section(id="finding-banner", className="finding-banner", **{"aria-label": "finding"}),
            map_switches(run, state),
            html.Div(
                [_grid(run), focus(run), html.Div(id="map-value", className="map-value", hidden=True)],
                id="maps",
                className="maps",
                style=tile_style(run),
                **kind_data(run),
            ),
            html.Div(
                [
                    html.Div(empty_card(id, HEIGHT), id=f"frame-{id}", hidden=True)
                    for id in (*ON_EVERY_PAGE, *((PATH,) if run.kind.name == "point" else ()))
                ],
                id="curves",
                className="curves",
            ),
            messages.empty(why_no_belief(run)) if why_no_belief(run) else None,
            _keys(),
            dcc.Store(id="trajectory-run", data=about),
            dcc.Store(id="trajectory-cursor", data={key: at[key] for key in Cursor.model_fields}),
            dcc.Store(id="trajectory-finding", data=state.finding),
            *[dcc.Store(id=f"trajectory-{name}") for name in _STORES],
        ],
        id="trajectory",
        className="trajectory",
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "move"),
        Output("trajectory-moved", "data"),
        Input("trajectory-run", "data"),
        *[
            Input(control_id(key), "value")
            for key in ("cell", "sample", "cells", "variables", "limits", "scale", "channel")
        ],
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "show_numbers"),
        Output("trajectory-numbers-shown", "data"),
        Input("trajectory-numbers", "data"),
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "refresh"),
        Output("trajectory-refreshed", "data"),
        VERSION,
        prevent_initial_call=True,
    )

    app.clientside_callback(
        ClientsideFunction("gradscope_trajectory", "show_span"),
        Output("trajectory-span-shown", "data"),
        Input("trajectory-span", "data"),
    )

    @app.callback(
        Output("finding-banner", "children"),
        Output("trajectory-span", "data"),
        Input("trajectory-finding", "data"),
        VIEW,
    )
    def explain(key: Key, view: View | None):
        run, _ = shown_state(library, view)
        return banner(run, key), span(run, key)

    # One callback for all that every page has: a further one costs the browser tens of milliseconds.
    inputs = (CURSOR, Input(control_id("label"), "value"), VERSION, VIEW)

    @app.callback(
        *(output for id in ON_EVERY_PAGE for output in _outputs(id)), Output("trajectory-numbers", "data"), *inputs
    )
    def draw(cursor: Cursor, label: LabelText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        found = figures(run, **dict(cursor), label=label)
        each = [_or_notice(partial(_filled, id, found.get(id), run)) or _HIDDEN for id in ON_EVERY_PAGE]
        return *chain(*each), _or_notice(partial(sample_numbers, run, cursor.cell, cursor.sample)) or no_update

    @app.callback(*_outputs(PATH), *inputs)
    def path(cursor: Cursor, label: LabelText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        return _filled(PATH, figures(run, **dict(cursor), label=label).get(PATH), run)


def _or_notice(make: Callable[[], T]) -> T | None:
    """What `make` gives; where a part of the store cannot be read, a notice, and None: the rest is shown."""
    try:
        return make()
    except GradscopeError as error:
        dash.set_props("notices", {"children": [messages.error(str(error))]})
        return None


def _outputs(id: str) -> tuple[Output, ...]:
    """What `_filled` gives values for."""
    parts = ("frame-{}", "hidden"), ("title-{}", "children"), ("caption-{}", "children"), ("menu-{}", "children")
    return *(Output(name.format(id), key) for name, key in parts), Output(id, "figure"), Output(id, "style")


def _filled(id: str, shown: CursorFigure | None, run: OpenRun) -> tuple[Any, ...]:
    if shown is None:
        return _HIDDEN
    figure = page_figure(shown.call, run, legend=False)
    figure["layout"]["uirevision"] = shown.call.arguments.get("name")  # keeps the zoom
    menu = export_menu(shown.call, run, id)
    return False, shown.title, shown.caption, menu, figure, {"height": f"{shown.height}px"}


def _controls(run: OpenRun, state: State, cells: list[int]):
    last = run.ds.sizes["sample"] - 1
    return html.Div(
        [
            cell_select(run, "cell", state.cell, "cell"),
            dmc.NumberInput(
                id=control_id("sample"),
                label=f"sample, 0 to {last}",
                value=state.sample,
                min=0,
                max=last,
                allowDecimal=False,
                clampBehavior="strict",
                size="xs",
            ),
            html.Details(
                [
                    html.Summary("cells, diagnostics and class"),
                    html.Div(
                        [
                            cells_select(run, cells),
                            variables_select(run, state.variables),
                            class_select(run, state.label, "class of the curves' means"),
                        ],
                        className="shown-items",
                    ),
                ],
                className="shown-choice",
            ),
            map_menu(run),
        ],
        className="choices",
    )


def _scrubber():
    """The bar into which assets/trajectory.js puts the slider."""
    return html.Div(
        [
            html.Button(id="play", type="button", title="Space", **{"aria-label": "play", "aria-pressed": "false"}),
            html.Div([html.Div(id="range"), html.Div(id="scrubber-span", hidden=True)], id="scrubber"),
            html.Div(id="where"),
            html.Button("?", id="keys-button", type="button", title="keys", **{"aria-label": "keys"}),
        ],
        className="scrubber",
    )


def _grid(run: OpenRun):
    """The section into which assets/maps.js puts the maps of all cells."""
    return html.Section(
        [
            html.Div(id="cells", className="cells"),
            how_drawn(run) if run.tensors else None,
            html.P(id="maps-note", className="caption"),
            html.P(id="nonfinite", className="caption", hidden=True),
        ],
        className="grid",
        **{"aria-label": "maps of all cells"},
    )


def _keys():
    return html.Dialog(
        [
            html.H2("Keys", className="card-title"),
            html.Dl(
                [html.Div([html.Dt(html.Kbd(key)), html.Dd(action)]) for key, action in KEYS.items()], className="keys"
            ),
            html.Button("close", type="button"),
        ],
        id="keys",
        **{"aria-label": "keys"},
    )
