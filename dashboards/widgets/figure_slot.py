"""Places of a page in which callbacks draw a figure, again and again without building its card anew."""

from typing import Any

import dash_mantine_components as dmc
from dash import Output, dcc, html, no_update

from dashboards.data.library import Recorded
from dashboards.widgets.controls import empty, export_menu, figure_frame, shown
from dashboards.widgets.export import Call
from gradscope.errors import GradscopeError

_LOADING = {"visibility": "visible", "opacity": 0.5}


def place(id: str):
    """A figure's card, or why there is none; until a callback says which, a skeleton.

    The graph has the `id`; the style sheet gives its height, and ``place-<id>`` is the class around it.
    """
    return dcc.Loading(
        [
            html.Div(id=f"why-{id}"),
            html.Div(figure_frame(id, 300), id=f"of-{id}", hidden=True),
            dmc.Skeleton(height=240, className="until"),
        ],
        delay_show=300,
        overlay_style=_LOADING,
        parent_className=f"place-{id}",
    )


def outputs(id: str) -> tuple[Output, ...]:
    """What a callback sets to `filled` or `closed`."""
    parts = ((f"of-{id}", "hidden"), (f"why-{id}", "children"), (f"title-{id}", "children"))
    return *(Output(*part) for part in parts), Output(f"menu-{id}", "children"), Output(id, "figure")


def filled(id: str, call: Call, run: Recorded, title: str) -> tuple[Any, ...]:
    """The figure of a call, or what the store lacks for it.

    While the title is the same, the part that was zoomed into stays.
    """
    try:
        figure = shown(call, run)
    except GradscopeError as error:
        return closed(f"{title}: {error}")
    figure["layout"] |= {"uirevision": title, "selectionrevision": call.encode()}
    return False, None, title, export_menu(call, run, id), figure


def closed(why: str = "") -> tuple[Any, ...]:
    """No figure, and why."""
    return True, empty(why) if why else html.Div(), no_update, no_update, no_update
