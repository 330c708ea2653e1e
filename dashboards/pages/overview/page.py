"""Overview: what fails, in which cells, and where along t."""

from collections.abc import Mapping
from typing import Any

import dash
import dash_mantine_components as dmc
import numpy as np
from dash import ClientsideFunction, Dash, Input, Output, dcc, html, no_update
from dash.exceptions import PreventUpdate
from pydantic import BaseModel

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.overview.cells_table import cell_badges, cell_columns, cell_rows
from dashboards.pages.overview.findings_table import COLUMNS, finding_rows
from dashboards.state import State, diagnostics
from dashboards.widgets.controls import LabelText, class_select, control_id, variable_select
from dashboards.widgets.export import Call
from dashboards.widgets.figure_card import figure_card
from dashboards.widgets.grid import Column, changed_columns, height_of, table
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.messages import amount_written, dependence, empty
from gradscope.analysis.findings import Finding
from gradscope.plots.heatmap import flagged_spans
from gradscope.reporting.report import headline

TITLE = "Overview"
CELLS_SHOWN = 16
"""Rows of the table that are seen without scrolling."""
FEW = 8
"""Fewer samples say little; the headline says so."""
SPANS_SHOWN = 32
"""Outlined spans of the heat map; the address of its numbers holds them all."""


class FlaggedSpan(BaseModel, extra="forbid"):
    """Timesteps of a cell that a finding flags, see `gradscope.plots.heatmap.Span`."""

    cell: dict[str, str | float]
    first: float
    last: float
    name: str


class Found(BaseModel, extra="forbid"):
    """The findings on the page: content of the dcc.Store ``overview-found``."""

    version: str
    """Of `findings_version`."""
    badges: dict[str, str]
    """Of `cell_badges`."""
    spans: dict[str, list[FlaggedSpan]]
    """The spans that findings flag, by diagnostic; of `gradscope.plots.heatmap.flagged_spans`."""


def layout(run: OpenRun, state: State):
    """The cells; findings and heat map follow by callback, since they take a moment."""
    return html.Div(
        [
            dependence(run),
            html.Section(_findings(run), className="overview-findings", **{"aria-label": "findings"}),
            html.Section(_heat_map(run, state), className="overview-heat", **{"aria-label": "stability"}),
            html.Section(_cells(run, state), className="overview-cells", **{"aria-label": "cells"}),
            *[dcc.Store(id=name) for name in ("overview-found", "overview-opened")],
        ],
        className="overview",
    )


def _findings(run: OpenRun) -> list:
    sizes = run.ds.sizes
    shape = f"{len(run.cells)} cells, {sizes['sample']} samples and {sizes['timestep']} timesteps in each"
    return [
        html.Div(
            [html.H1("Looking for what fails …", id="headline"), html.Span(shape, className="caption")],
            className="overview-head",
        ),
        dmc.Skeleton(
            html.Div(
                [
                    table(
                        "findings-table", COLUMNS, [], "findings, most severe first; Enter opens one",
                        height="var(--findings)", selected=[],
                    ),
                    _finding(),
                ],
                id="findings-body",
                className="findings-body",
            ),
            id="findings-wait",
            visible=True,
        ),
        html.Div(id="untested"),
    ]  # fmt: skip


def _finding():
    """The selected finding; assets/overview.js fills it in."""
    return html.Section(
        [
            html.H2(id="finding-name", className="card-title"),
            html.A(id="finding-link", className="view-link open-button", href="trajectory"),
            html.P([html.B("Reason: "), html.Span(id="finding-evidence")]),
            html.P([html.B("What to try: "), html.Span(id="finding-advice")]),
            html.P([html.B("What opens: "), html.Span(id="finding-why")], className="caption"),
        ],
        className="finding",
        **{"aria-label": "selected finding"},
    )


def _heat_map(run: OpenRun, state: State) -> list:
    if not state.variables:
        return [empty("This store holds no diagnostic along t. Probes record them: see `probes` in its configuration.")]
    height = _height(run)
    return [
        html.Div(
            [variable_select(run, state.variables, "diagnostic"), class_select(run, state.label)],
            className="beside-label",
        ),
        html.Div(dmc.Skeleton(height=height), id="stability-card", style={"minHeight": f"{height + 60}px"}),
    ]


def _cells(run: OpenRun, state: State) -> list:
    rows = cell_rows(run, state, {}, state.label)
    return [
        html.Div(html.H2("Cells", className="card-title"), className="card-head"),
        html.P("One row for each cell. A click or Enter opens its trajectory.", className="caption"),
        table("cells-table", cell_columns(run.ds), rows, "cells", height=height_of(len(rows), CELLS_SHOWN)),
    ]


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""

    @app.callback(
        output={
            "headline": Output("headline", "children"),
            "rows": Output("findings-table", "rowData"),
            "height": Output("findings-table-frame", "style"),
            "selected": Output("findings-table", "selectedRows"),
            "body": Output("findings-body", "style"),
            "waiting": Output("findings-wait", "visible"),
            "untested": Output("untested", "children"),
            "found": Output("overview-found", "data"),
        },
        inputs=[VERSION, VIEW, dash.State("overview-found", "data")],
    )
    def findings(version: str | None, view: View | None, before: Found | None):
        run, _ = shown_state(library, view)
        now = findings_version(run)
        if before and before.version == now:
            raise PreventUpdate
        found = run.findings()
        rows = finding_rows(run, found)
        return {
            "headline": headline_text(run, found),
            "rows": rows,
            "height": {"height": f"min({height_of(len(rows), len(rows))}, var(--findings))"},
            "selected": rows[:1] if before is None else no_update,
            "body": {} if rows else {"display": "none"},
            "waiting": False,
            "untested": _untested(run.untested()),
            "found": Found(version=now, badges=cell_badges(run, found), spans=_spans(run, found)).model_dump(),
        }

    @app.callback(
        Output("cells-table", "rowData"),
        Output("cells-table", "columnDefs"),
        VERSION,
        Input("overview-found", "data"),
        Input(control_id("label"), "value"),
        VIEW,
        dash.State("cells-table", "columnDefs"),
        prevent_initial_call=True,
    )
    def cells(
        version: str | None, found: Found | None, label: LabelText, view: View | None, columns: list[Column] | None
    ):
        run, state = shown_state(library, view)
        rows = cell_rows(run, state, found.badges if found else {}, label)
        return rows, changed_columns(cell_columns(run.ds), columns)

    @app.callback(
        Output("stability-card", "children"),
        Input(control_id("variables"), "value"),
        Input(control_id("label"), "value"),
        Input("overview-found", "data"),
        VERSION,
        VIEW,
    )
    def stability(name: str, label: LabelText, found: Found | None, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        flagged = [span.model_dump() for span in found.spans.get(name, [])] if found else []
        outlined = "; outlined: what findings flag" if flagged else ""
        caption = (
            f"One row for each cell, in sampling order from left to right{outlined}. A click opens that cell and "
            "timestep."
        )
        call = Call("stability", {"name": name} | ({"flagged": flagged} if flagged else {}), label)
        return figure_card(call, run, "stability", _height(run), f"{name}, mean over samples", caption)

    app.clientside_callback(
        ClientsideFunction("gradscope_overview", "describe"),
        Output("finding-name", "children"),
        Output("finding-link", "children"),
        Output("finding-link", "href"),
        Output("finding-evidence", "children"),
        Output("finding-advice", "children"),
        Output("finding-why", "children"),
        Input("findings-table", "selectedRows"),
        Input("findings-table", "rowData"),
        prevent_initial_call=True,
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_overview", "open"),
        Output("overview-opened", "data"),
        Input("stability", "clickData"),
        dash.State("cells-table", "rowData"),
        prevent_initial_call=True,
    )


def _spans(run: OpenRun, found: list[Finding]) -> dict[str, Any]:
    """The spans that findings flag, by diagnostic; the most severe ones where there are many."""
    every = {name: flagged_spans(found, name)[:SPANS_SHOWN] for name in diagnostics(run)}
    return {name: spans for name, spans in every.items() if spans}


def findings_version(run: OpenRun) -> str:
    """A text that changes when findings have to be computed again: while a run is recorded, with each complete cell."""
    if not run.live:
        return run.version
    amount = amount_written(run)
    return str(np.flatnonzero(amount.finished == amount.samples).tolist())


def headline_text(run: OpenRun, findings: list[Finding]) -> str:
    """The findings in one sentence."""
    amount = amount_written(run)
    if not amount.share:
        return "Nothing is recorded yet"
    seen = {run.cells.index(finding.cell) for finding in findings} | set(np.flatnonzero(amount.finished).tolist())
    sentence = headline(findings, len(seen))
    if (most := int(amount.finished.max())) < FEW:
        sentence += f"; N = {most}: too few samples to rule faults out"
    if amount.complete:
        return sentence
    rest = len(run.cells) - len(seen)
    unfinished = f"; of {rest} cells no sample is finished" if rest else ""
    return f"{sentence}, with {100 * amount.share:.0f} % written{unfinished}"


def _untested(reasons: Mapping[str, str]):
    """A folded list of the signatures that could not be tested, with reasons."""
    if not reasons:
        return None
    noun = "signature" if len(reasons) == 1 else "signatures"
    items = [html.Li([html.B(f"{name}: "), reason]) for name, reason in reasons.items()]
    return html.Details([html.Summary(f"{len(reasons)} {noun} could not be tested"), html.Ul(items)])


def _height(run: OpenRun) -> int:
    """Pixels of the heat map; with 16 cells it fits on a small screen together with the findings."""
    return min(max(70 + 14 * len(run.cells), 200), 640)
