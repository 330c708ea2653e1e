"""What pages share: cards of figures, selections of cells and diagnostics, words to the user."""

import json
import re
from collections.abc import Sequence
from typing import Annotated, Any

import dash_mantine_components as dmc
from dash import dcc, html
from pydantic import BeforeValidator, Field

from dashboards.data.library import Broken, Recorded
from dashboards.state import SHOWN_MOST, VARIABLES_MOST, scalars
from dashboards.widgets.export import Call, stamp
from gradscope.analysis import written
from gradscope.analysis.independence import also_guides, warnings
from gradscope.plots.style import PLOTLY_CONFIG, cell_name

GRAPH_CONFIG = {**PLOTLY_CONFIG, "responsive": True, "displayModeBar": "hover"}


def _number(value: Any) -> int:
    if not isinstance(value, str) or not re.fullmatch("[0-9]{1,9}", value):
        raise ValueError("a number as text is needed")
    return int(value)


NumberText = Annotated[int, BeforeValidator(_number)]
"""Type of a select whose options are numbers, such as that of `cell_select`."""
CellNumbers = Annotated[list[NumberText], Field(max_length=SHOWN_MOST, fail_fast=True)]
"""Type of `cells_select`."""


def control(key: str) -> dict[str, str]:
    """Id of a control whose value belongs to the state: it is written to the URL."""
    return {"type": "control", "key": key}


def figure_card(call: Call, run: Recorded, title: str, caption: str = "", id: Any = None, height: int | None = None):
    """A figure with its title, its explanation and the menu that saves it.

    Parameters
    ----------
    call
        The figure and its arguments.
    id
        Of the graph, where a callback is to draw it anew: with `shown`, and the menu with `export_menu`.
    height
        In pixels; the figure's own where None.
    """
    figure = shown(call, run)
    name = id if id is not None else f"figure-{call.figure}"
    text = name if isinstance(name, str) else json.dumps(name, sort_keys=True, separators=(",", ":"))
    height = height or figure["layout"].get("height", 360)
    return figure_frame(name, height, figure, export_menu(call, run, text), title, caption)


def figure_frame(id: Any, height: int, figure: Any = None, menu: Any = None, title: str = "", caption: str = ""):
    """What `figure_card` puts around a figure, which a callback may set.

    The places are ``id``, ``menu-<id>``, ``title-<id>`` and ``caption-<id>``.
    """
    text = id if isinstance(id, str) else json.dumps(id, sort_keys=True, separators=(",", ":"))
    head = [html.H2(title, id=f"title-{text}", className="card-title"), html.Div(menu, id=f"menu-{text}")]
    return dmc.Paper(
        [
            html.Div(head, className="card-head"),
            html.P(caption, id=f"caption-{text}", className="caption"),
            dcc.Graph(id=id, figure=figure, config=GRAPH_CONFIG, responsive=True, style={"height": f"{height}px"}),
        ],
        withBorder=True,
        p="xs",
        className="card",
    )


def shown(call: Call, run: Recorded, legend: bool = True) -> dict[str, Any]:
    """A figure as a page shows it.

    Parameters
    ----------
    legend
        False where the page itself says which line is which; saved pictures have their legend all the same.
    """
    figure = call.draw(run).to_dict()  # a copy: the figure itself is kept, and other threads may be looking at it
    layout = figure["layout"]
    layout["autosize"] = True
    if not legend:
        layout |= {"showlegend": False, "margin": {**layout.get("margin", {}), "t": 20}}
        layout["meta"] = {**layout.get("meta", {}), "legend": True}
    return figure


def export_menu(call: Call, run: Recorded, graph: str):
    """Saves the figure of this graph as SVG or PNG, its numbers as CSV, and the Python that draws it."""
    picture = {"data-figure": graph, "data-stamp": stamp(run)}
    return html.Details(
        [
            html.Summary("Export", className="export-button"),
            html.Div(
                [
                    html.Button("SVG", type="button", **picture, **{"data-export": "svg"}),
                    html.Button("PNG", type="button", **picture, **{"data-export": "png"}),
                    html.A("CSV", href=f"numbers/{run.key}.csv?call={call.encode()}", download=f"{call.figure}.csv"),
                    html.Button(
                        "copy as Python", type="button", **{"data-export": "python", "data-code": call.python(run)}
                    ),
                ],
                className="export-items",
            ),
        ],
        className="export",
    )


def cell_select(run: Recorded, key: str, value: int, label: str) -> dmc.Select:
    """Chooses one cell; its value is the cell's number, as text."""
    return dmc.Select(
        id=control(key),
        label=label,
        data=_cells(run),
        value=str(value),
        allowDeselect=False,
        searchable=True,
        size="xs",
        w=260,
    )


def cells_select(run: Recorded, value: Sequence[int], label: str = "cells", most: int = SHOWN_MOST) -> dmc.MultiSelect:
    """Chooses the cells that are shown together; its value is their numbers, as texts."""
    return dmc.MultiSelect(
        id=control("cells"),
        label=label,
        data=_cells(run),
        value=[str(number) for number in value],
        maxValues=most,
        searchable=True,
        hidePickedOptions=True,
        size="xs",
        className="many",
    )


def variables_select(run: Recorded, value: Sequence[str], label: str = "diagnostics", most: int = VARIABLES_MOST):
    """Chooses diagnostics; its value is their names. A single one where `most` is 1."""
    names = sorted(scalars(run))
    if most == 1:
        return dmc.Select(
            id=control("variables"), label=label, data=names, value=value[0], allowDeselect=False, searchable=True,
            size="xs", w=220,
        )  # fmt: skip
    return dmc.MultiSelect(
        id=control("variables"), label=label, data=names, value=list(value), maxValues=most, searchable=True, size="xs",
        className="many",
    )  # fmt: skip


def progress(run: Recorded):
    """How far a run is that is being recorded; None where it is complete."""
    much = run.memo("written", lambda: written(run.scalars("written")))
    if run.live:
        return dmc.Badge(f"recording: {100 * much.share:.0f} %", color="orange", variant="light")
    return None if much.complete else dmc.Badge(f"{100 * much.share:.0f} % written", color="gray", variant="light")


def name_of(run: Recorded, number: int) -> str:
    """A cell in words."""
    return cell_name(run.cell(number))


def empty(text: str):
    """In place of what is not there: why, and what would bring it."""
    return dmc.Alert(text, color="gray", variant="light", title="Nothing to show", className="empty")


def notice(text: str):
    """Something that the user may not expect, to be closed."""
    return dmc.Alert(text, color="orange", variant="light", withCloseButton=True, p="xs")


def dependence(run: Recorded):
    """Where judge or features of the distances are those of a guide: that, wherever their numbers are shown."""
    told = [f"{text[0].upper()}{text[1:]}." for text in warnings(also_guides(run.ds)).values()]
    if not told:
        return None
    return dmc.Alert([html.P(text) for text in told], color="orange", variant="light", p="xs", className="dependence")


def error(text: str):
    """Something that failed."""
    return dmc.Alert(text, color="red", variant="light", title="That did not work", withCloseButton=True, p="xs")


def broken(run: Broken):
    """A store that cannot be opened."""
    return dmc.Alert(
        [html.P(run.reason), html.P("The other stores are in the list above; this one is looked at again on reload.")],
        title=f"{run.path.name} cannot be opened",
        color="red",
        variant="light",
    )


def _cells(run: Recorded) -> list[dict[str, str]]:
    return [{"value": str(number), "label": name_of(run, number)} for number in range(len(run.cells))]
