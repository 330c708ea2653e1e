"""What all figures share: colours and dashes, names, backgrounds that suit a light and a dark page."""

import html
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.curve_signatures import CURVES
from gradscope.analysis.diagnostics import described
from gradscope.store import CELL_DIMS
from probes.catalogue import CATALOGUE

PLOTLY_CONFIG: Mapping[str, bool] = {"showSendToCloud": False, "displaylogo": False}
"""For ``figure.show(config=...)`` and ``figure.to_html(config=...)``."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Okabe and Ito's colours, which the colour-blind can tell apart; without black, which a dark page hides."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#808080"
TIMESTEP = "timestep t, in sampling order"

_INK, _RULE, _CLEAR = "#707070", "rgba(128, 128, 128, 0.3)", "rgba(0, 0, 0, 0)"


def cell_name(cell: Mapping[str, Any]) -> str:
    """A cell in words: ``robust, x0, adam, 0.5``; what it has along further dimensions comes after that."""
    four = [*(str(cell[dim]) for dim in CELL_DIMS[:3]), f"{cell['guidance_scale']:g}"]
    return ", ".join([*four, *(f"{dim} {value}" for dim, value in cell.items() if dim not in CELL_DIMS)])


def by_cell(numbers: pd.DataFrame) -> Iterator[tuple[Mapping[str, Any], pd.DataFrame]]:
    """Each cell with its rows, in the order of the table; its columns are those before ``timestep``."""
    dims = [str(column) for column in numbers.columns[: numbers.columns.get_loc("timestep")]]
    groups = numbers.groupby(dims, sort=False)
    return ((dict(zip(dims, key, strict=True)), rows) for key, rows in groups)


def defined(numbers: pd.DataFrame) -> pd.DataFrame:
    """The rows to draw: of a diagnostic on a grid, those of timesteps at which a cell has values; else all.

    Its line leads from one of its timesteps to the next; in all others, what has no values is a gap.
    """
    if not numbers.attrs["on_a_grid"]:
        return numbers
    there = numbers.groupby("timestep")["n"].transform("sum") > 0
    return numbers[there] if there.any() else numbers


def text(value: object) -> str:
    """As plotly is to show it: plotly reads markup in its texts."""
    return html.escape(str(value), quote=False)


def about(ds: xr.Dataset, name: str) -> dict[str, Any]:
    """What a figure of a diagnostic must know of it, beside its numbers."""
    row = described(ds, name)
    return {"name": name, "label": label(ds, name), "logarithmic": row.logarithmic, "on_a_grid": row.on_a_grid}


def thresholds(figure: go.Figure, name: str) -> None:
    """A dotted line, with its name, for each failure signature that compares this diagnostic with a threshold."""
    values = row.thresholds if (row := CATALOGUE.get(name)) else {}
    for signature in (s for s in CURVES if s.name in values):
        value = values[signature.name]
        figure.add_hline(y=value, line={"color": GREY, "dash": "dot", "width": 1.25})
        figure.add_annotation(
            text=f"{signature.name}: {signature.side} {value:g}",
            x=0.005, xref="x domain", xanchor="left", y=value, yanchor="bottom", showarrow=False,
        )  # fmt: skip


def label(ds: xr.Dataset, name: str) -> str:
    """Name and unit of a variable."""
    unit = ds[name].attrs.get("units", "1")
    return name if unit == "1" else f"{name} [{unit}]"


def assigned(names: Iterable[str], values: tuple[str, ...]) -> dict[str, str]:
    """A colour or a dash for each different name, in order of appearance."""
    different = dict.fromkeys(names)
    return {name: values[i % len(values)] for i, name in enumerate(different)}


def shade(colour: str, opacity: float) -> str:
    """A colour of `PALETTE` that lets through what is behind it."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"


def finish(figure: go.Figure, height: int) -> go.Figure:
    """Size, and ink that can be read on white and on black."""
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"color": _INK, "size": 12},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        hoverlabel={"namelength": -1},
        modebar={"bgcolor": _CLEAR, "color": _INK},
    )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True)
    figure.update_yaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True, ticklabelstandoff=4)
    return figure
