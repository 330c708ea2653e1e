"""The app: pages around one cursor. The URL is their state."""

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
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.data.open_run import OpenRun
from dashboards.images import routes
from dashboards.security import callbacks, guard
from dashboards.security.callbacks import CheckedDash
from dashboards.state import parse
from dashboards.widgets import export, messages
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
    """The browser's address: content of the dcc.Store ``address``."""

    path: str
    query: dict[str, str]


def create_app(stores: Sequence[str | Path], prefix: str = "/") -> Dash:
    """The dashboard of some stores as a Dash app; ``create_app([...]).server`` is its WSGI application.

    It answers to any host name. `serve` answers only to the names of this machine where it listens on this machine
    alone.

    Parameters
    ----------
    stores
        Paths of recorded stores. The app reads these and nothing else. A store that cannot be opened is shown as such.
    prefix
        Path of the app on its host, with a slash at both ends, for a reverse proxy that serves it below ``/``.
    """
    return app_of(Library([Path(store) for store in stores]), prefix)


def app_of(library: Library, prefix: str, names: Collection[str] | None = None) -> Dash:
    """The app of a library. The first page opens the runs, since that takes a while.

    Parameters
    ----------
    names
        Host names that the app answers to, see `dashboards.security.guard`.
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
        use_pages=False,  # Dash's own pages; ours share one
        csrf_token_name=guard.PAGE_COOKIE,
        csrf_header_name=guard.PAGE_HEADER,
        suppress_callback_exceptions=True,
        on_error=_show_error,
    )
    app.layout = shell.layout()
    guard.register(app.server, prefix, names)
    callbacks.register(app, prefix)
    routes.register(app.server, library, prefix)
    export.register(app.server, library, prefix)
    _register_navigation(app, library)
    _register_growth(app, library)
    for page in (*pages.PAGES.values(), *pages.ALONE.values()):
        page.register(app, library)
    return app


def _register_navigation(app: Dash, library: Library) -> None:
    app.clientside_callback(
        "function () { return window.gradscope.address(); }", Output("address", "data"), Input("page", "id")
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "write_url"),
        Output("url-written", "data"),
        Input({"type": "control", "key": ALL}, "value"),
        State({"type": "control", "key": ALL}, "id"),
        State("view", "data"),
        prevent_initial_call=True,
    )

    @app.callback(Output("store-select", "data"), Input("page", "id"))
    def stores(page: str):
        return shell.store_options(library)

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
        run = library.run(address.query.get("store"))
        if not isinstance(run, OpenRun | BrokenRun):
            run.refresh()
            name = "oracle" if isinstance(run, OpenLeaderboard) else "check"
            view = View(store=run.key, page=name, url=f"{name}?store={run.key}", pages=[name])
            return pages.ALONE[name].layout(run, address.query), [], view.model_dump(), run.key, None, True
        state, texts = parse(address.path, address.query, library)
        notices = [messages.notice(text) for text in texts]
        if isinstance(run, BrokenRun):
            view = View(store=run.key, page="overview", url=f"overview?store={run.key}", pages=["overview"])
            return messages.broken(run), notices, view.model_dump(), run.key, None, True
        assert state is not None  # `parse` finds one in every run that can be opened
        run.refresh()
        if reason := pages.missing(state.page, run):
            notices.append(messages.notice(f"{pages.PAGES[state.page].TITLE}: {reason}; this is the overview"))
            state = state.to("overview")
        view = View(store=run.key, page=state.page, url=state.url(), pages=pages.shown(run))
        content = pages.PAGES[state.page].layout(run, state)
        return content, notices, view.model_dump(), run.key, messages.progress(run), not run.live

    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "show_view"), Output("view-shown", "data"), Input("view", "data")
    )
    app.clientside_callback(
        ClientsideFunction("gradscope_shell", "open_store"),
        Output("store-opened", "data"),
        Input("store-select", "value"),
        State("view", "data"),
        prevent_initial_call=True,
    )


def _register_growth(app: Dash, library: Library) -> None:
    """While a run is recorded, look for its growth and pass the new version to the page."""

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
        if run is None or not isinstance(run, OpenRun):
            return no_update, no_update, True
        run.refresh()
        changed = run.version if run.version != version else no_update
        return changed, messages.progress(run), not run.live


def _show_error(error: Exception) -> Any:
    """Show an error of a callback on the page."""
    if isinstance(error, HTTPException):  # the answer to a malformed value
        raise error
    expected = isinstance(error, GradscopeError | OSError)
    text = (
        str(error) if expected else f"{type(error).__name__}: {error}. This is a fault of gradscope, please report it"
    )
    dash.set_props("notices", {"children": [messages.error(text)]})
    if not expected:
        _LOG.error("a callback failed", exc_info=error)
    return no_update
