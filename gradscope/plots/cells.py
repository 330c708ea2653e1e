"""How a cell looks, which is the same in every figure, and what figures along t share."""

from collections.abc import Mapping, Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from gradscope.analysis.contents import Cell, place, require
from gradscope.errors import GradscopeError
from gradscope.plots.style import DASHES, PALETTE, TIMESTEP
from gradscope.store.dims import CELL_DIMS, cell_dims, over

INK = "#808080"
"""Of lines that belong to no cell: seen on white and on black."""
_SYMBOLS = ("circle", "square-open", "diamond", "triangle-up-open", "x")
_THIN, _THICK = 1.25, 3.0
_A_ROW = 3
"""Entries of a legend on a narrow page."""

Floats = NDArray[np.float64]
Coordinates = Mapping[str, list]
"""The values along the cells' dimensions: with them `draw_...` knows how a cell looks without having the store."""


class Look(NamedTuple):
    """How the lines of one cell are drawn."""

    colour: str
    """By classifier,"""
    dash: str
    """by stabilizer,"""
    symbol: str
    """by classifier_input,"""
    width: float
    """and the thicker, the larger the guidance_scale."""


def coordinates(ds: xr.Dataset) -> Coordinates:
    return {dim: ds[dim].values.tolist() for dim in cell_dims(ds)}


def named(ds: xr.Dataset, cell: Mapping[str, Any]) -> Cell:
    """A cell with all its dimensions.

    Raises
    ------
    GradscopeError
        There is no such cell.
    """
    known = coordinates(ds)
    return {dim: known[dim][i] for dim, i in place(ds, cell).items()}


def chosen(ds: xr.Dataset, cells: Sequence[Mapping[str, Any]]) -> list[Cell]:
    """Cells with all their dimensions, each once.

    Raises
    ------
    GradscopeError
        There is no such cell, or none is named.
    """
    if not cells:
        raise GradscopeError("cells: none is chosen; choose one or more")
    full = [named(ds, cell) for cell in cells]
    return [cell for i, cell in enumerate(full) if cell not in full[:i]]


def number(known: Coordinates, cell: Cell) -> int:
    """Place of a cell in `gradscope.analysis.contents.cells`."""
    index = [values.index(cell[dim]) for dim, values in known.items()]
    return int(np.ravel_multi_index(index, [len(values) for values in known.values()]))


def look(known: Coordinates, cell: Cell) -> Look:
    """By the cell's place in its store, not by what is shown beside it."""
    classifier, kind, stabilizer, scale = (known[dim].index(cell[dim]) for dim in CELL_DIMS)
    scales = sorted(known["guidance_scale"])
    rank = scales.index(cell["guidance_scale"]) / (len(scales) - 1) if len(scales) > 1 else 0.5
    return Look(
        PALETTE[classifier % len(PALETTE)],
        DASHES[stabilizer % len(DASHES)],
        _SYMBOLS[kind % len(_SYMBOLS)],
        _THIN + rank * (_THICK - _THIN),
    )


def line(known: Coordinates, cell: Cell) -> dict[str, Any]:
    """For a trace of lines: colour, dash, width and a few markers."""
    colour, dash, symbol, width = look(known, cell)
    return {
        "mode": "lines+markers",
        "line": {"color": colour, "dash": dash, "width": width},
        "marker": {
            "symbol": symbol,
            "color": colour,
            "size": 7,
            "maxdisplayed": 9,
            "line": {"width": 1.5, "color": colour},
        },
        "meta": {"cell": number(known, cell)},
    }


def headline(figure: go.Figure, told: str) -> go.Figure:
    """A line above the figure, in plotly's markup."""
    line = {"text": told, "font_size": 12, "x": 0, "y": 1, "yanchor": "top", "pad": {"l": 8, "t": 8}}
    return figure.update_layout(title=line)


def legend(figure: go.Figure, entries: int) -> int:
    """Put the legend above the figure; the height that it takes there."""
    figure.update_layout(
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
            "tracegroupgap": 0, "font": {"size": 11},
        }
    )  # fmt: skip
    return 20 * ceil(entries / _A_ROW)


def diagnostic(ds: xr.Dataset, name: str) -> None:
    """Raise GradscopeError where this is no diagnostic over cells, sample and timestep of the store."""
    require(ds, name)
    if set(ds[name].dims) != {*over(ds)}:
        raise GradscopeError(f"{name} is not a diagnostic over samples and timesteps")


def values(ds: xr.Dataset, name: str, cell: Cell) -> Floats:
    """A diagnostic of one cell, ``(samples, timesteps)``."""
    return ds[name].isel(place(ds, cell)).transpose("sample", "timestep").values.astype(np.float64)


def finite_mean(found: Floats, axis: int) -> tuple[Floats, NDArray[np.int64]]:
    """Mean of the finite values along an axis, NaN where there are none; and how many there are."""
    finite = np.isfinite(found)
    n = finite.sum(axis=axis)
    return np.where(finite, found, 0).sum(axis=axis) / np.where(n > 0, n, np.nan), n


def along_t(figure: go.Figure, timestep: ArrayLike, **lowest: int) -> go.Figure:
    """Timesteps in sampling order on all horizontal axes, and a mark for the cursor that the dashboard lays over.

    Parameters
    ----------
    timestep
        All of them; every figure of a store has the same limits.
    lowest
        Row and column of the subplot that says what the axis is.
    """
    last, first = np.min(timestep), np.max(timestep)
    room = 0.02 * max(first - last, 1)
    figure.update_xaxes(range=[first + room, last - room])
    figure.update_xaxes(title=TIMESTEP, **lowest)
    return figure.update_layout(meta={"timestep": True})


def row(ds: xr.Dataset, sample: int) -> int:
    """Where a sample is along its dimension.

    Raises
    ------
    GradscopeError
        There is no such sample.
    """
    known = ds["sample"].values.tolist()
    if sample not in known:
        raise GradscopeError(f"sample: there is no {sample}; {known[0]} to {known[-1]}")
    return int(known.index(sample))
