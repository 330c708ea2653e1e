"""Compare: two cells, paired over the samples that they share."""

from typing import Any

import dash_mantine_components as dmc
import pandas as pd
from dash import ClientsideFunction, Dash, Input, Output, State, ctx, html, no_update

from dashboards.data.library import Library, Recorded
from dashboards.pages.compare import selection
from dashboards.pages.compare.differences import HEADS, differences, headline, hint, why_not, words
from dashboards.state import State as View
from dashboards.widgets import controls as components
from dashboards.widgets.controls import NumberText, control
from dashboards.widgets.export import Call
from dashboards.widgets.figure_slot import closed, filled, outputs, place
from dashboards.widgets.links import View as Shown
from dashboards.widgets.links import came_from
from gradscope.analysis.comparison import SCALARS, Comparison, compare

TITLE = "Compare"
CELLS = (Input(control("cell"), "value"), Input(control("other"), "value"))


def layout(run: Recorded, state: View):
    """Controls; the rest follows by callback, since the statistics take a moment."""
    if not state.variables:
        return components.empty(f"{run.path.name} has no diagnostic along t: add norms, cosines or belief to `probes`")
    swap = dmc.Button("⇄", id="compare-swap", size="xs", variant="default", **{"aria-label": "swap a and b"})
    return html.Div(
        [
            dmc.VisuallyHidden(html.H1(TITLE)),
            html.Div(
                [
                    components.cell_select(run, "cell", state.cell, "a"),
                    swap,
                    components.cell_select(run, "other", state.other, "b"),
                    components.variables_select(run, state.variables, "curve and scatter", most=1),
                    html.Div(
                        [html.P(id="compare-hint"), html.P(id="compare-headline")],
                        className="compare-words",
                        role="status",
                    ),
                ],
                className="controls",
            ),
            components.dependence(run),
            html.Div(id="compare-reason"),
            html.Div(
                [
                    place("compare-forest"),
                    place("compare-difference"),
                    html.Div([place("compare-pairs"), selection.layout(run)], className="compare-samples"),
                    html.Div(id="compare-table", className="compare-table"),
                ],
                id="compare-body",
                className="compare",
            ),
        ]
    )


def register(app: Dash, library: Library) -> None:
    """Callbacks of the page."""
    app.clientside_callback(
        ClientsideFunction("gradscope_compare", "swap"),
        Output(control("cell"), "value"),
        Output(control("other"), "value"),
        Input("compare-swap", "n_clicks"),
        State(control("cell"), "value"),
        State(control("other"), "value"),
        prevent_initial_call=True,
    )
    selection.register(app, library)
    _statistics(app, library)
    _figures(app, library)


def _statistics(app: Dash, library: Library) -> None:
    @app.callback(
        Output("compare-hint", "children"),
        Output("compare-headline", "children"),
        Output("compare-reason", "children"),
        Output("compare-body", "style"),
        Output("compare-table", "children"),
        *outputs("compare-forest"),
        *CELLS,
        Input("version", "data"),
        State("view", "data"),
    )
    def statistics(first: NumberText, second: NumberText, version: str | None, view: Shown | None):
        run, _ = came_from(library, view)
        a, b = _cells(run, first, second)
        if reason := why_not(run.scalars("written"), a, b):
            return hint(a, b), "", components.empty(reason), {"display": "none"}, None, *closed()
        found = comparison(run, a, b)
        table = differences(run.scalars(*_recorded(run)), found)
        call = Call("forest", {"a": a, "b": b})
        forest = filled("compare-forest", call, run, "Paired differences of means over timesteps")
        return hint(a, b), headline(table), None, {}, _table(table, found), *forest


def _figures(app: Dash, library: Library) -> None:
    """Those that are linked by the selected samples."""

    @app.callback(
        *outputs("compare-difference"),
        *outputs("compare-pairs"),
        *CELLS,
        Input(control("variables"), "value"),
        Input("compare-samples", "value"),
        Input("version", "data"),
        State("view", "data"),
    )
    def draw(
        first: NumberText,
        second: NumberText,
        name: str,
        samples: selection.Samples,
        version: str | None,
        view: Shown | None,
    ):
        run, _ = came_from(library, view)
        a, b = _cells(run, first, second)
        if why_not(run.scalars("written"), a, b):
            return *closed(), *closed()
        about, chosen = {"name": name, "a": a, "b": b}, sorted(samples)
        apart = Call("difference", about | {"highlight": chosen})
        pairs = Call("pairs", about | {"selected": chosen})
        *scatter, figure = filled("compare-pairs", pairs, run, f"Sample by sample: {name}")
        if ctx.triggered_id == "compare-samples":
            figure = no_update  # the browser marks them, and keeps what is drawn by hand
        return *filled("compare-difference", apart, run, f"Difference along t: {name}"), *scatter, figure


def comparison(run: Recorded, a: dict[str, Any], b: dict[str, Any]) -> Comparison:
    """Of two cells; made once while the store does not change."""
    key = ("comparison", *a.values(), *b.values())
    return run.memo(key, lambda: compare(run.scalars(*_recorded(run)), a, b))


def _cells(run: Recorded, first: int, second: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two cells by their numbers."""
    return dict(run.cell(first)), dict(run.cell(second))


def _recorded(run: Recorded) -> list[str]:
    """Diagnostics that are compared, as far as the store has them; ``written`` is always there."""
    return [of.variable for of in SCALARS.values() if of.variable in run.ds] or ["written"]


def _table(table: pd.DataFrame, found: Comparison):
    """All numbers, and why others are not there."""
    head = html.Thead(html.Tr([html.Th(name, scope="col") for name in HEADS]))
    rows = [html.Tr([html.Th(row[0], scope="row"), *(html.Td(word) for word in row[1:])]) for row in words(table)]
    about = (
        f"{found.samples} samples are finished in both cells. Effect: rank-biserial correlation, of the accuracy "
        "Cohen's g. p: Student's t, of the accuracy McNemar's mid-p; none below 64 samples."
    )
    missing = [html.Li([html.B(name), f": {reason}"]) for name, reason in found.missing.items()]
    return dmc.Paper(
        [
            html.H2("All numbers, b − a", className="card-title"),
            html.P(about, className="caption"),
            html.Div(html.Table([head, html.Tbody(rows)]), className="compare-scroll", tabIndex=0, role="region",
                     **{"aria-label": "all numbers"}),
            html.Details([html.Summary(f"Not compared: {', '.join(found.missing)}"), html.Ul(missing)])
            if missing
            else None,
        ],
        withBorder=True,
        p="xs",
        className="card",
    )  # fmt: skip
