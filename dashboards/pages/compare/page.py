"""Compare: two cells, paired over the samples that they share."""

from typing import Any

import dash
import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, ctx, html, no_update

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.compare import selection
from dashboards.pages.compare.differences import HEADS, differences, headline, hint, table_texts, why_incomparable
from dashboards.state import State
from dashboards.widgets.controls import NumberText, cell_select, control_id, variable_select
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.grid import csv_button
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.messages import dependence, empty, no_diagnostic, why_no_diagnostic
from gradscope.analysis.comparison import SCALARS, Comparison, compare

TITLE = "Compare"
CELLS = (Input(control_id("cell"), "value"), Input(control_id("other"), "value"))


missing = why_no_diagnostic


def layout(run: OpenRun, state: State):
    """Controls; figures and table follow by callback, since the statistics take a moment."""
    if not state.variables:
        return no_diagnostic(run)
    swap = dmc.Button("⇄", id="compare-swap", size="xs", variant="default", **{"aria-label": "swap a and b"})
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    cell_select(run, "cell", state.cell, "a"),
                    swap,
                    cell_select(run, "other", state.other, "b"),
                    variable_select(run, state.variables, "curve and scatter plot"),
                    html.Div(
                        [html.P(id="compare-hint"), html.P(id="compare-headline")],
                        className="compare-words",
                        role="status",
                    ),
                ],
                className="controls",
            ),
            dependence(run),
            html.Div(id="compare-reason"),
            html.Div(
                [
                    slot("compare-forest"),
                    slot("compare-difference"),
                    html.Div([slot("compare-pairs"), selection.layout(run)], className="compare-samples"),
                    html.Div(id="compare-table", className="compare-table"),
                ],
                id="compare-body",
                className="compare",
            ),
        ]
    )


def register(app: Dash, library: Library) -> None:
    """Add the callbacks of the page."""
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "swap"),
        Output(control_id("cell"), "value"),
        Output(control_id("other"), "value"),
        Input("compare-swap", "n_clicks"),
        dash.State(control_id("cell"), "value"),
        dash.State(control_id("other"), "value"),
        prevent_initial_call=True,
    )
    selection.register(app, library)
    _register_statistics(app, library)
    _register_figures(app, library)


def _register_statistics(app: Dash, library: Library) -> None:
    @app.callback(
        Output("compare-hint", "children"),
        Output("compare-headline", "children"),
        Output("compare-reason", "children"),
        Output("compare-body", "style"),
        Output("compare-table", "children"),
        *slot_outputs("compare-forest"),
        *CELLS,
        VERSION,
        VIEW,
    )
    def statistics(first: NumberText, second: NumberText, version: str | None, view: View | None):
        run, _ = shown_state(library, view)
        a, b = dict(run.cell(first)), dict(run.cell(second))
        if reason := why_incomparable(run.scalars("written"), a, b):
            return hint(a, b), "", empty(reason), {"display": "none"}, None, *unfilled()
        comparison = _comparison(run, a, b)
        table = differences(run.scalars(*_stored(run)), comparison)
        call = Call("forest", {"a": a, "b": b})
        forest = filled("compare-forest", call, run, "Paired differences of means over timesteps")
        return hint(a, b), headline(table), None, {}, _table(table, comparison), *forest


def _register_figures(app: Dash, library: Library) -> None:
    """Two figures that the selected samples link."""

    @app.callback(
        *slot_outputs("compare-difference"),
        *slot_outputs("compare-pairs"),
        *CELLS,
        Input(control_id("variables"), "value"),
        Input("compare-samples", "value"),
        VERSION,
        VIEW,
    )
    def draw(
        first: NumberText,
        second: NumberText,
        name: str,
        samples: selection.Samples,
        version: str | None,
        view: View | None,
    ):
        run, _ = shown_state(library, view)
        a, b = dict(run.cell(first)), dict(run.cell(second))
        if why_incomparable(run.scalars("written"), a, b):
            return *unfilled(), *unfilled()
        arguments = {"name": name, "a": a, "b": b}
        difference = Call("difference", arguments | {"highlight": sorted(samples)})
        pairs = Call("pairs", arguments | {"selected": sorted(samples)})
        *texts, figure = filled("compare-pairs", pairs, run, f"Sample by sample: {name}")
        if ctx.triggered_id == "compare-samples":
            figure = no_update  # the browser marks the samples, and keeps the box that the user drew
        return *filled("compare-difference", difference, run, f"Difference along t: {name}"), *texts, figure


def _comparison(run: OpenRun, a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    key = ("comparison", *a.values(), *b.values())
    return run.memo(key, lambda: compare(run.scalars(*_stored(run)), a, b))


def _stored(run: OpenRun) -> list[str]:
    """The compared diagnostics that the store has; ``written`` where it has none."""
    return [scalar.variable for scalar in SCALARS.values() if scalar.variable in run.ds] or ["written"]


def _table(table: pd.DataFrame, comparison: Comparison):
    """All differences, and the reasons why others are missing."""
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in HEADS]))
    rows = [html.Tr([html.Th(row[0], scope="row"), *map(html.Td, row[1:])]) for row in table_texts(table)]
    caption = (
        f"{comparison.samples} samples are finished in both cells. Effect: rank-biserial correlation, for the accuracy "
        "Cohen's g. p: Student's t, for the accuracy McNemar's mid-p; none below 64 samples."
    )
    missing = [html.Li([html.B(name), f": {reason}"]) for name, reason in comparison.missing.items()]
    return dmc.Paper(
        [
            html.Div(
                [html.H2("All differences, b − a", className="card-title"), csv_button("compare-table", "differences")],
                className="card-head",
            ),
            html.P(caption, className="caption"),
            html.Div(html.Table([head, html.Tbody(rows)]), className="compare-scroll", tabIndex=0, role="region",
                     **{"aria-label": "all differences"}),
            html.Details([html.Summary(f"Not compared: {', '.join(comparison.missing)}"), html.Ul(missing)])
            if missing
            else None,
        ],
        withBorder=True,
        p="xs",
        className="card",
    )  # fmt: skip
