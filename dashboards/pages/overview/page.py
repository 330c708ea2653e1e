"""The landing page: what fails, in which cells, and where along t."""

from collections.abc import Mapping

import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html, no_update
from dash import State as Unwatched
from dash.exceptions import PreventUpdate
from pydantic import BaseModel

from dashboards.data.library import Library, Recorded
from dashboards.pages.overview.cells_table import cell_columns, cell_rows, found_in
from dashboards.pages.overview.findings_table import COLUMNS, finding_rows
from dashboards.state import State
from dashboards.widgets.controls import control, dependence, empty, figure_card, variables_select
from dashboards.widgets.export import Call
from dashboards.widgets.grid import Column, fitting, renewed, table
from dashboards.widgets.links import View, came_from
from gradscope.analysis.contents import Written, written
from gradscope.analysis.findings import Finding
from gradscope.reporting.report import headline

TITLE = "Overview"
FINDINGS_SHOWN, CELLS_SHOWN = 7, 16
"""So many rows are seen without scrolling."""
_WAITING = "Looking for what fails …"


class Found(BaseModel, extra="forbid"):
    """What was found in each cell, in the dcc.Store ``overview-found``."""

    version: str
    """See `complete`."""
    badges: dict[str, str]
    """By id of a row, see `found_in`."""


def layout(run: Recorded, state: State):
    """All that is known at once; findings and the heat map follow."""
    return html.Div(
        [
            dependence(run),
            html.Section(_findings(run), className="overview-findings", **{"aria-label": "findings"}),
            html.Section(_heat(run, state), className="overview-heat", **{"aria-label": "stability"}),
            html.Section(_cells(run, state), className="overview-cells", **{"aria-label": "cells"}),
            *[dcc.Store(id=name) for name in ("overview-found", "finding-at", "overview-went")],
        ],
        className="overview",
    )


def _findings(run: Recorded) -> list:
    sizes = run.ds.sizes
    shape = f"{len(run.cells)} cells, {sizes['sample']} samples and {sizes['timestep']} timesteps in each"
    return [
        html.Div(
            [html.H1(_WAITING, id="headline"), html.Span(shape, className="caption")], className="overview-head"
        ),
        dmc.Skeleton(
            html.Div(
                [
                    table(
                        "findings-table", COLUMNS, [], "findings, most severe first",
                        height=fitting(FINDINGS_SHOWN, FINDINGS_SHOWN), at="finding-at",
                    ),
                    html.Div(
                        [
                            html.H2(id="finding-name", className="card-title"),
                            html.P(id="finding-evidence"),
                            html.P([html.B("What to try: "), html.Span(id="finding-advice")]),
                            html.A(id="finding-link", className="view-link", href="trajectory"),
                        ],
                        className="finding",
                    ),
                ],
                id="findings-body",
                className="findings-body",
            ),
            id="findings-wait",
            visible=True,
        ),
        html.Div(id="untested"),
    ]  # fmt: skip


def _heat(run: Recorded, state: State) -> list:
    if not state.variables:
        return [empty("This store holds no diagnostic along t. Probes record them: see `probes` in its configuration.")]
    return [
        html.Div(variables_select(run, state.variables, "diagnostic", most=1), className="beside-label"),
        html.Div(dmc.Skeleton(height=_height(run)), id="stability-card", style={"minHeight": f"{_height(run) + 60}px"}),
    ]


def _cells(run: Recorded, state: State) -> list:
    rows = cell_rows(run, state, {})
    return [
        html.Div(html.H2("Cells", className="card-title"), className="card-head"),
        html.P("One row a combination; a click, or Enter, leads into its trajectories.", className="caption"),
        table("cells-table", cell_columns(run.ds), rows, "cells", height=fitting(len(rows), CELLS_SHOWN)),
    ]


def register(app: Dash, library: Library) -> None:
    @app.callback(
        output={
            "told": Output("headline", "children"),
            "rows": Output("findings-table", "rowData"),
            "height": Output("findings-table-frame", "style"),
            "at": Output("finding-at", "data"),
            "body": Output("findings-body", "style"),
            "waiting": Output("findings-wait", "visible"),
            "untested": Output("untested", "children"),
            "found": Output("overview-found", "data"),
        },
        inputs=[Input("version", "data"), Unwatched("view", "data"), Unwatched("overview-found", "data")],
    )
    def findings(version: str | None, view: View | None, before: Found | None):
        run = came_from(library, view)[0]
        if before and before.version == complete(run):
            raise PreventUpdate
        found = run.findings()
        rows = finding_rows(run, found)
        return {
            "told": told(run, found),
            "rows": rows,
            "height": {"height": fitting(len(rows), FINDINGS_SHOWN)},
            "at": rows[0] if rows else no_update,
            "body": {} if rows else {"display": "none"},
            "waiting": False,
            "untested": _untested(run.untested()),
            "found": Found(version=complete(run), badges=found_in(run, found)).model_dump(),
        }

    @app.callback(
        Output("cells-table", "rowData"),
        Output("cells-table", "columnDefs"),
        Input("version", "data"),
        Input("overview-found", "data"),
        Unwatched("view", "data"),
        Unwatched("cells-table", "columnDefs"),
        prevent_initial_call=True,
    )
    def cells(version: str | None, found: Found | None, view: View | None, columns: list[Column] | None):
        run, state = came_from(library, view)
        return cell_rows(run, state, found.badges if found else {}), renewed(cell_columns(run.ds), columns)

    @app.callback(
        Output("stability-card", "children"),
        Input(control("variables"), "value"),
        Input("version", "data"),
        Unwatched("view", "data"),
    )
    def stability(name: str, version: str | None, view: View | None):
        run = came_from(library, view)[0]
        return figure_card(
            Call("stability", {"name": name}), run, f"{name}, mean over samples",
            "A row a cell, in sampling order from left to right. A click leads to that cell and timestep.",
            id="stability", height=_height(run),
        )  # fmt: skip

    app.clientside_callback(
        ClientsideFunction("gradscope_overview", "shown"),
        Output("finding-name", "children"),
        Output("finding-evidence", "children"),
        Output("finding-advice", "children"),
        Output("finding-link", "children"),
        Output("finding-link", "href"),
        Input("finding-at", "data"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_overview", "go"),
        Output("overview-went", "data"),
        Input("stability", "clickData"),
        Unwatched("cells-table", "rowData"),
        prevent_initial_call=True,
    )


def complete(run: Recorded) -> str:
    """Changes when findings are to be looked for again: while a run is recorded, with every cell that is complete."""
    if not run.live:
        return run.version
    much = _amount(run)
    return str(np.flatnonzero(much.finished == much.samples).tolist())


def told(run: Recorded, findings: list[Finding]) -> str:
    """What fails, in one sentence."""
    much = _amount(run)
    if not much.share:
        return "Nothing is recorded yet"
    sentence = headline(findings, len(run.cells))
    return sentence if much.complete else f"{sentence}, with {100 * much.share:.0f} % written"


def _amount(run: Recorded) -> Written:
    return run.memo("written", lambda: written(run.scalars("written")))


def _untested(reasons: Mapping[str, str]):
    """What could not be tested, and why; folded."""
    if not reasons:
        return None
    many = "signature" if len(reasons) == 1 else "signatures"
    told = [html.Li([html.B(f"{name}: "), reason]) for name, reason in reasons.items()]
    return html.Details([html.Summary(f"{len(reasons)} {many} could not be tested"), html.Ul(told)])


def _height(run: Recorded) -> int:
    """Pixels of the heat map: with 16 cells, findings and heat map are seen at once on a small screen."""
    return min(max(64 + 14 * len(run.cells), 200), 640)
