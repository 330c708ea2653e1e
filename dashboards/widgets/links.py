"""Links between views: the run and state of the page that is shown, and the state that a link to a cell opens."""

from typing import Annotated
from urllib.parse import parse_qsl

import dash
from pydantic import BaseModel, Field

from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from dashboards.state import CELLS_DEFAULT, VARIABLES_MAX, State, default, diagnostics, parse
from gradscope.errors import GradscopeError

VIEW = dash.State("view", "data")
"""State of a callback: the page that is shown, a `View`."""
VERSION = dash.Input("version", "data")
"""Input of a callback that runs when the store grows: `OpenRun.version`, None at first."""


class View(BaseModel, extra="forbid"):
    """The page that is shown: content of the dcc.Store ``view``."""

    store: str
    """Key of the run."""
    page: str
    url: str
    """Relative URL that restores the state with which the page was opened."""
    pages: Annotated[list[str], Field(max_length=32)] = []
    """Pages that have something to show of the run."""


def shown_state(library: Library, view: View | None) -> tuple[OpenRun, State]:
    """The run that a page shows, and the state with which it was opened.

    Raises
    ------
    GradscopeError
        No page is shown, or the store can no longer be opened.
    """
    if view is None:
        raise GradscopeError("no page is shown yet; reload it")
    run = library.run(view.store)
    path, _, query = view.url.partition("?")
    state, _ = parse(path, dict(parse_qsl(query)), library)
    if not isinstance(run, OpenRun) or state is None:
        raise GradscopeError(run.reason if isinstance(run, BrokenRun) else f"{run.path} cannot be opened as a run")
    return run, state


def trajectory_state(run: OpenRun, cell: int, variables: tuple[str, ...] = ()) -> State:
    """The state of the trajectory page of a cell: the cell is among those shown, these diagnostics come first."""
    start = default(run, "trajectory")
    cells = start.cells if cell in start.cells else tuple(sorted((*start.cells[: CELLS_DEFAULT - 1], cell)))
    known = tuple(name for name in variables if name in diagnostics(run))
    shown = tuple(dict.fromkeys((*known, *start.variables)))[:VARIABLES_MAX]
    return start.to("trajectory", cell=cell, cells=cells, variables=shown)
