"""Slots of a page that callbacks fill with figures: the card stays, its figure and texts change."""

from typing import Any

import dash_mantine_components as dmc
from dash import Output, dcc, html, no_update

from dashboards.data.two_runs import Drawn
from dashboards.widgets.export import Call
from dashboards.widgets.figure_card import empty_card, export_menu, page_figure
from dashboards.widgets.messages import empty
from gradscope.errors import GradscopeError

_LOADING = {"visibility": "visible", "opacity": 0.5}


def slot(id: str):
    """A figure's card, or the reason why there is none; a skeleton until a callback sets one of them.

    The graph has the `id`, the element around all has the class ``slot-<id>``. The style sheet sets the height.
    """
    return dcc.Loading(
        [
            html.Div(id=f"reason-{id}"),
            html.Div(empty_card(id, 300), id=f"frame-{id}", hidden=True),
            dmc.Skeleton(height=240, className="slot-skeleton"),
        ],
        delay_show=300,
        overlay_style=_LOADING,
        parent_className=f"slot-{id}",
    )


def slot_outputs(id: str) -> tuple[Output, ...]:
    """The outputs that `filled` and `unfilled` give values for."""
    parts = ((f"frame-{id}", "hidden"), (f"reason-{id}", "children"), (f"title-{id}", "children"))
    return *(Output(*part) for part in parts), Output(f"menu-{id}", "children"), Output(id, "figure")


def filled(id: str, call: Call, run: Drawn, title: str) -> tuple[Any, ...]:
    """The figure of a call, or why the store cannot show it. The zoom stays while the title is the same."""
    try:
        figure = page_figure(call, run)
    except GradscopeError as error:
        return unfilled(f"{title}: {error}")
    figure["layout"] |= {"uirevision": title, "selectionrevision": call.encode()}
    return False, None, title, export_menu(call, run, id), figure


def unfilled(reason: str = "") -> tuple[Any, ...]:
    """No figure, and why."""
    return True, empty(reason) if reason else html.Div(), no_update, no_update, no_update
