"""Compare: two cells, of one store or of two: which is better, and all differences."""

import dash
import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, ctx, dcc, html, no_update

from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.data.two_runs import other_run
from dashboards.pages.compare import selection
from dashboards.pages.compare.differences import HEADS, differences, hint, table_texts
from dashboards.pages.compare.shown import compared
from dashboards.state import State
from dashboards.widgets.controls import (
    LabelText,
    NumberText,
    cell_options,
    cell_select,
    class_select,
    control_id,
    variable_select,
)
from dashboards.widgets.figure_slot import filled, slot, slot_outputs, unfilled
from dashboards.widgets.grid import csv_button
from dashboards.widgets.links import VERSION, VIEW, View, shown_state
from dashboards.widgets.messages import dependence, empty, no_diagnostic, why_no_diagnostic
from gradscope.analysis.comparison import SCALARS, Comparison
from gradscope.analysis.configurations import configuration_differences
from gradscope.analysis.verdict import verdict

TITLE = "Compare"
CELLS = tuple(Input(control_id(key), "value") for key in ("cell", "other", "label"))
SAME_STORE = "same"
"""Value of the select of the store of b, where that is the store of a."""


missing = why_no_diagnostic


def layout(run: OpenRun, state: State):
    """Controls; figures and table follow by callback, since the statistics take a moment."""
    if not state.variables:
        return no_diagnostic(run)
    swap = dmc.Button("⇄", id="compare-swap", size="xs", variant="default", **{"aria-label": "swap a and b"})
    store = dmc.Select(
        id="compare-other-store",
        label="store of b",
        data=[{"value": SAME_STORE, "label": "the same"}],
        value=state.other_store or SAME_STORE,
        allowDeselect=False,
        size="xs",
        w=170,
    )
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.P("Comparing …", id="compare-headline", className="compare-verdict", role="status"),
            html.Div(
                [
                    cell_select(run, "cell", state.cell, "a"),
                    swap,
                    cell_select(run, "other", state.other, "b"),
                    store,
                    class_select(run, state.label),
                    variable_select(run, state.variables, "curve and scatter plot"),
                    html.P(id="compare-hint", className="compare-words"),
                ],
                className="controls",
            ),
            dcc.Store(id="compare-moved"),
            dependence(run),
            html.Div(id="compare-reason"),
            html.Div(
                [
                    slot("compare-forest"),
                    slot("compare-difference"),
                    html.Div([slot("compare-pairs"), selection.layout(run)], className="compare-samples"),
                    html.Div(
                        [html.Div(id="compare-table"), html.Div(id="compare-settings")], className="compare-table"
                    ),
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
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "open_other"),
        Output("compare-moved", "data"),
        Input("compare-other-store", "value"),
        VIEW,
        prevent_initial_call=True,
    )
    _register_stores(app, library)
    selection.register(app, library)
    _register_statistics(app, library)
    _register_figures(app, library)


def _register_stores(app: Dash, library: Library) -> None:
    @app.callback(
        Output("compare-other-store", "data"),
        Output(control_id("other"), "data"),
        Output("compare-settings", "children"),
        VIEW,
        Input("compare-body", "id"),
    )
    def stores(view: View | None, body: str):
        run, state = shown_state(library, view)
        other = other_run(library, run, state.other_store)
        known = [found for found in library.runs.values() if isinstance(found, OpenRun) and found is not run]
        options = [{"value": found.key, "label": found.path.name} for found in known]
        same = {"value": SAME_STORE, "label": "the same"}
        settings = None if other is run else _settings(run, other)
        return [same, *options], cell_options(other), settings


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
    def statistics(first: NumberText, second: NumberText, label: LabelText, version: str | None, view: View | None):
        shown = compared(library, view, first, second, label)
        words = hint(shown.a, shown.b, shown.two_stores)
        if reason := shown.why_not():
            return words, "", empty(reason), {"display": "none"}, None, *unfilled()
        comparison = shown.comparison()
        ds, other = shown.scalars(*(scalar.variable for scalar in SCALARS.values()))
        table = differences(ds, comparison, other)
        title = (
            "Differences of means over timesteps"
            if comparison.unpaired
            else "Paired differences of means over timesteps"
        )
        forest = filled("compare-forest", shown.call("forest"), shown.drawn, title)
        return words, verdict(comparison), None, {}, _table(table, comparison), *forest


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
        label: LabelText,
        name: str,
        samples: selection.Samples,
        version: str | None,
        view: View | None,
    ):
        shown = compared(library, view, first, second, label)
        if shown.why_not():
            return *unfilled(), *unfilled()
        difference = shown.call("difference", name=name, highlight=sorted(samples))
        pairs = shown.call("pairs", name=name, selected=sorted(samples))
        *texts, figure = filled("compare-pairs", pairs, shown.drawn, f"Sample by sample: {name}")
        if ctx.triggered_id == "compare-samples":
            figure = no_update  # the browser marks the samples, and keeps the box that the user drew
        return *filled("compare-difference", difference, shown.drawn, f"Difference along t: {name}"), *texts, figure


def _settings(run: OpenRun, other: OpenRun):
    """What differs in the configurations of two stores."""
    found = configuration_differences(run.ds, other.ds)
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in ("setting", "a", "b")]))
    rows = [
        html.Tr([html.Th(row["key"], scope="row"), *(html.Td(row[store] or "–", title=row[store]) for store in "ab")])
        for row in found.to_dict("records")
    ]
    return dmc.Paper(
        [
            html.H2("What differs in the configurations", className="card-title"),
            html.P(f"a: {run.path.name}; b: {other.path.name}; –: no such setting", className="caption"),
            html.Div(html.Table([head, html.Tbody(rows)]), className="compare-scroll", tabIndex=0, role="region",
                     **{"aria-label": "settings that differ"})
            if rows
            else html.P("Nothing: both stores have the same settings."),
        ],
        withBorder=True,
        p="xs",
        className="card compare-settings",
    )  # fmt: skip


def _table(table: pd.DataFrame, comparison: Comparison):
    """All differences, and the reasons why others are missing."""
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in HEADS]))
    rows = [html.Tr([html.Th(row[0], scope="row"), *map(html.Td, row[1:])]) for row in table_texts(table)]
    caption = (
        f"{comparison.samples} samples are finished in both cells. Effect: rank-biserial correlation, for the accuracy "
        "Cohen's g. p: Student's t, for the accuracy McNemar's mid-p; none below 64 samples."
    )
    if comparison.unpaired:
        caption = (
            f"Samples are not pairs: {comparison.unpaired}. Effect: Cliff's delta, for the accuracy Cohen's h. "
            "p: Welch's t, for the accuracy Newcombe's; none where a cell has fewer than 64 samples."
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
