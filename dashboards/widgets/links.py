"""Where callbacks come from, and ways into the cursor view."""

from urllib.parse import parse_qsl

from pydantic import BaseModel

from dashboards.data.library import Library, Recorded
from dashboards.state import SHOWN, VARIABLES_MOST, State, default, parse, scalars
from gradscope.errors import GradscopeError


class View(BaseModel, extra="forbid"):
    """The page that is shown, in the dcc.Store ``view``."""

    store: str
    page: str
    url: str


def came_from(library: Library, view: View | None) -> tuple[Recorded, State]:
    """The run that a page shows, and the state with which it was opened.

    Raises
    ------
    GradscopeError
        The store cannot be opened any more, or no page is shown.
    """
    if view is None:
        raise GradscopeError("no page is shown yet; load it again")
    run = library.run(view.store)
    path, _, query = view.url.partition("?")
    state, _ = parse(path, dict(parse_qsl(query)), library)
    if not isinstance(run, Recorded) or state is None:
        raise GradscopeError(run.reason if not isinstance(run, Recorded) else f"{run.path} cannot be opened")
    return run, state


def into(run: Recorded, cell: int, variables: tuple[str, ...] = ()) -> State:
    """The cursor view of a cell: it is among those shown, and these diagnostics come first."""
    usual = default(run, "trajectory")
    cells = usual.cells if cell in usual.cells else tuple(sorted((*usual.cells[: SHOWN - 1], cell)))
    there = tuple(name for name in variables if name in scalars(run))
    shown = tuple(dict.fromkeys((*there, *usual.variables)))[:VARIABLES_MOST]
    return usual.to("trajectory", cell=cell, cells=cells, variables=shown)
