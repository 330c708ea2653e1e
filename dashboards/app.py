"""The app: pages around one cursor, whose state is the URL."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import dash
from dash import ClientsideFunction, Dash, Input, Output, State, no_update
from dash.dependencies import ALL
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException

from dashboards import pages, shell
from dashboards.data.library import Broken, Library
from dashboards.images import routes
from dashboards.security import callbacks, guard
from dashboards.security.callbacks import CheckedDash
from dashboards.state import parse
from dashboards.widgets import controls as components
from dashboards.widgets import export
from dashboards.widgets.links import View
from gradscope.errors import GradscopeError

_LOG = logging.getLogger(__name__)
_ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
    "%3Cpath d='M2 13L8 3l6 10' fill='none' stroke='%23d55e00' stroke-width='3'/%3E%3C/svg%3E"
)
_INDEX = """<!DOCTYPE html>
<html lang="en">
    <head>
        {%metas%}
        <title>{%title%}</title>
        <link rel="icon" href="{icon}">
        {%css%}
    </head>
    <body>
        {%app_entry%}
        <footer>
            {%config%}
            {%scripts%}
            {%renderer%}
        </footer>
    </body>
</html>"""


class Address(BaseModel, extra="forbid"):
    """The page's address as the browser has it."""

    path: str
    query: dict[str, str]


def create_app(stores: Sequence[str | Path], prefix: str = "/") -> Dash:
    """The dashboard of some stores, as a Dash app; ``create_app([...]).server`` is its WSGI application.

    It answers to any host name: where it is meant for one machine, `serve` lets in no other than that machine's.

    Parameters
    ----------
    stores
        Paths of recorded stores. They are opened for reading only, and nothing else is. One that cannot be opened is
        shown as such.
    prefix
        Path of the app on its host, with a slash at both ends: for a reverse proxy that does not serve it at ``/``.
    """
    return app_of(Library([Path(store) for store in stores]), prefix)


def app_of(library: Library, prefix: str, names: Collection[str] | None = None) -> Dash:
    """The app of a library, which a page asks for its runs once it is loaded: opening them takes a while.

    Parameters
    ----------
    names
        Of hosts under which it is asked, see `dashboards.security.guard`.
    """
    app = CheckedDash(
        "dashboards",
        title="gradscope",
        update_title=None,
        include_pages_meta=False,
        assets_folder=str(Path(__file__).parent / "assets"),
        pages_folder="",
        url_base_pathname=prefix,
        index_string=_INDEX.replace("{icon}", _ICON),
        use_pages=False,  # Dash's own; ours are one page
        csrf_token_name=guard.PAGE_COOKIE,
        csrf_header_name=guard.PAGE_HEADER,
        suppress_callback_exceptions=True,
        on_error=_tell,
    )
    app.layout = shell.layout()
    guard.register(app.server, prefix, names)
    callbacks.register(app, prefix)
    routes.register(app.server, library, prefix)
    export.register(app.server, library, prefix)
    _navigation(app, library)
    _growth(app, library)
    for page in pages.PAGES.values():
        page.register(app, library)
    return app


def _navigation(app: Dash, library: Library) -> None:
    app.clientside_callback(
        "function () { return window.gradscope.address(); }", Output("address", "data"), Input("page", "id")
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "write"),
        Output("written", "data"),
        Input({"type": "control", "key": ALL}, "value"),
        State({"type": "control", "key": ALL}, "id"),
        State("view", "data"),
        prevent_initial_call=True,
    )

    @app.callback(Output("store-select", "data"), Input("page", "id"))
    def stores(page: str):
        return shell.choices(library)

    @app.callback(
        Output("page", "children"),
        Output("notices", "children"),
        Output("view", "data"),
        Output("store-select", "value"),
        Output("live", "children"),
        Output("poll", "disabled"),
        Input("address", "data"),
    )
    def show(address: Address | None):
        if address is None:
            return (no_update,) * 6
        state, notices = parse(address.path, address.query, library)
        run = library.run(address.query.get("store"))
        told = [components.notice(text) for text in notices]
        if isinstance(run, Broken):
            view = {"store": run.key, "page": "overview", "url": f"overview?store={run.key}"}
            return components.broken(run), told, view, run.key, None, True
        assert state is not None  # there is one where the run can be opened
        run.refresh()
        view = {"store": run.key, "page": state.page, "url": state.url()}
        content = pages.PAGES[state.page].layout(run, state)
        return content, told, view, run.key, components.progress(run), not run.live

    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "shown"), Output("shown", "data"), Input("view", "data")
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "open"),
        Output("opened", "data"),
        Input("store-select", "value"),
        State("view", "data"),
        prevent_initial_call=True,
    )


def _growth(app: Dash, library: Library) -> None:
    """While a run is recorded: look for what is new, and tell the page."""

    @app.callback(
        Output("version", "data"),
        Output("live", "children", allow_duplicate=True),
        Output("poll", "disabled", allow_duplicate=True),
        Input("poll", "n_intervals"),
        State("view", "data"),
        State("version", "data"),
        prevent_initial_call=True,
    )
    def look(n_intervals: int | None, view: View | None, version: str | None):
        run = library.run(view.store) if view else None
        if run is None or isinstance(run, Broken):
            return no_update, no_update, True
        run.refresh()
        changed = run.version if run.version != version else no_update
        return changed, components.progress(run), not run.live


def _tell(error: Exception) -> Any:
    """What went wrong in a callback, said on the page."""
    if isinstance(error, HTTPException):  # an answer of its own
        raise error
    known = isinstance(error, GradscopeError | OSError)
    text = str(error) if known else f"{type(error).__name__}: {error}. This is a fault of gradscope, please report it"
    dash.set_props("notices", {"children": [components.error(text)]})
    if not known:
        _LOG.error("a callback failed", exc_info=error)
    return no_update
