"""Figures in cards: title, caption, graph, and the menu that exports the figure."""

from typing import Any

import dash_mantine_components as dmc
from dash import dcc, html

from dashboards.data.two_runs import Drawn
from dashboards.widgets.export import Call, stamp
from dashboards.widgets.file_names import file_name
from gradscope.plots.style import PLOTLY_CONFIG

GRAPH_CONFIG = {
    **PLOTLY_CONFIG,
    "responsive": True,
    "displayModeBar": "hover",
    # The card's own menu saves the figure. Few buttons fit above the curves.
    "modeBarButtonsToRemove": ["toImage", "lasso2d", "zoomIn2d", "zoomOut2d", "autoScale2d"],
}


def figure_card(call: Call, run: Drawn, id: str, height: int, title: str, caption: str):
    """A card with a figure. `id` is that of the graph; the height is in pixels."""
    return empty_card(id, height, page_figure(call, run), export_menu(call, run, id), title, caption)


def empty_card(id: str, height: int, figure: Any = None, menu: Any = None, title: str = "", caption: str = ""):
    """A card whose parts a callback can set: ``id``, ``menu-<id>``, ``title-<id>`` and ``caption-<id>``."""
    head = [html.H2(title, id=f"title-{id}", className="card-title"), html.Div(menu, id=f"menu-{id}")]
    return dmc.Paper(
        [
            html.Div(head, className="card-head"),
            html.P(caption, id=f"caption-{id}", className="caption"),
            dcc.Graph(id=id, figure=figure, config=GRAPH_CONFIG, responsive=True, style={"height": f"{height}px"}),
        ],
        withBorder=True,
        p="xs",
        className="card",
    )


def page_figure(call: Call, run: Drawn, legend: bool = True) -> dict[str, Any]:
    """A figure as a page shows it.

    Parameters
    ----------
    legend
        False where the page itself says which line is which. Saved pictures have their legend either way.
    """
    figure = call.page(run)
    layout = figure["layout"]
    layout["autosize"] = True
    if not legend:
        layout |= {"showlegend": False, "margin": {**layout.get("margin", {}), "t": 28}}
        layout["meta"] = {**layout.get("meta", {}), "legend": True}
    return figure


def export_menu(call: Call, run: Drawn, graph: str):
    """A menu that saves the figure of a graph as SVG, PNG or PDF, its numbers as CSV, and copies its Python."""
    name = file_name(run.path.name, call.figure, call.arguments)
    picture = {"data-figure": graph, "data-stamp": stamp(run), "data-name": name}
    return html.Details(
        [
            html.Summary("Export", className="export-button"),
            html.Div(
                [
                    html.Button("SVG", type="button", **picture, **{"data-export": "svg"}),
                    html.Button("PNG", type="button", **picture, **{"data-export": "png"}),
                    html.Button("PDF, by printing", type="button", **picture, **{"data-export": "pdf"}),
                    html.A("CSV", href=f"numbers/{run.key}.csv?call={call.encode()}", download=f"{name}.csv"),
                    html.Button(
                        "copy as Python", type="button", **{"data-export": "python", "data-code": call.python(run)}
                    ),
                ],
                className="export-items",
            ),
        ],
        className="export",
    )
