"""The line style of a cell, which is the same in every figure."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import xarray as xr

from gradscope.analysis.cells import Cell
from gradscope.plots.style import DASHES, PALETTE
from gradscope.store.dims import CELL_DIMS, cell_dims

_SYMBOLS = ("circle", "square-open", "diamond", "triangle-up-open", "x")
_THIN, _THICK = 1.25, 3.0

Coordinates = Mapping[str, list]
"""The values along each cell dimension. With these a figure knows the style of a cell without reading the store."""


class Look(NamedTuple):
    """The line style of one cell."""

    colour: str
    """Set by the classifier."""
    dash: str
    """Set by the stabilizer, and by the names along further dimensions, such as that of runs."""
    symbol: str
    """Set by classifier_input."""
    width: float
    """Grows with guidance_scale."""


def coordinates(ds: xr.Dataset) -> Coordinates:
    """The values along each cell dimension of a store."""
    return {dim: ds[dim].values.tolist() for dim in cell_dims(ds)}


def cell_number(known: Coordinates, cell: Cell) -> int:
    """Position of a cell in the order of `gradscope.analysis.cells.cells`."""
    index = [values.index(cell[dim]) for dim, values in known.items()]
    return int(np.ravel_multi_index(index, [len(values) for values in known.values()]))


def look(known: Coordinates, cell: Cell) -> Look:
    """The style of a cell. It depends on the cell's place in its store, not on the other cells of a figure."""
    classifier, kind = (known[dim].index(cell[dim]) for dim in ("classifier", "classifier_input"))
    further = [dim for dim in known if dim not in CELL_DIMS]
    dash = cell_number({dim: known[dim] for dim in (*further, "stabilizer")}, cell)
    scales = sorted(known["guidance_scale"])
    rank = scales.index(cell["guidance_scale"]) / (len(scales) - 1) if len(scales) > 1 else 0.5
    return Look(
        PALETTE[classifier % len(PALETTE)],
        DASHES[dash % len(DASHES)],
        _SYMBOLS[kind % len(_SYMBOLS)],
        _THIN + rank * (_THICK - _THIN),
    )


def line(known: Coordinates, cell: Cell) -> dict[str, Any]:
    """Arguments of a trace of lines: colour, dash, width and a few markers."""
    colour, dash, symbol, width = look(known, cell)
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "dash": dash, "width": width},
        "marker": {
            "symbol": symbol,
            "color": colour,
            "size": 7,
            "maxdisplayed": 6,
            "line": {"width": 1.5, "color": colour},
        },
        "meta": {"cell": cell_number(known, cell)},
    }
