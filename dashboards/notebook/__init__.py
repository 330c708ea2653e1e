"""The cursor in a notebook: one finding, one cell or several cells inline, drawn as the dashboard draws them."""

from typing import TYPE_CHECKING

import xarray as xr

from gradscope.errors import GradscopeError

if TYPE_CHECKING:
    from dashboards.notebook.view import View
    from gradscope.analysis.cells import Cell
    from gradscope.analysis.findings import Finding

__all__ = ["show"]


def show(
    ds: xr.Dataset,
    finding: "int | Finding | None" = None,
    cell: "Cell | None" = None,
    sample: int | None = None,
    timestep: float | None = None,
) -> "View":
    """Show one finding, one cell or up to eight cells of a store; see `gradscope.accessor.Accessor.show`."""
    try:
        import anywidget  # noqa: F401
    except ImportError:
        raise GradscopeError("show: anywidget is not installed: pip install 'gradscope[notebook]'") from None
    from dashboards.notebook.cursor import Cursor, place_cursor
    from dashboards.notebook.source import Source
    from dashboards.notebook.view import View

    source = Source(ds)
    cursor: Cursor = place_cursor(source, finding, cell, sample, timestep)
    return View(source, cursor)
