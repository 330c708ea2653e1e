"""Colours and dashes of all figures, and the texts in them."""

import html
from collections.abc import Iterable, Mapping
from typing import Any

import xarray as xr

from gradscope.store import CELL_DIMS

PLOTLY_CONFIG: Mapping[str, bool] = {"showSendToCloud": False, "displaylogo": False}
"""For ``figure.show(config=...)`` and ``figure.to_html(config=...)``."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
"""Okabe and Ito's colours, which colour-blind readers can distinguish; without black, which a dark page hides."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#808080"
"""Colour of lines that belong to no cell: visible on a white and on a black page."""
INK = "#707070"
"""Colour of texts: legible on a white and on a black page."""


def cell_name(cell: Mapping[str, Any]) -> str:
    """A cell in words; names along further dimensions come last.

    Examples
    --------
    >>> cell = {"classifier": "robust", "classifier_input": "x0", "stabilizer": "adam", "guidance_scale": 0.5}
    >>> cell_name(cell)
    'robust, x0, adam, 0.5'
    """
    four = [*(str(cell[dim]) for dim in CELL_DIMS[:3]), f"{cell['guidance_scale']:g}"]
    return ", ".join([*four, *(f"{dim} {value}" for dim, value in cell.items() if dim not in CELL_DIMS)])


def escaped(value: object) -> str:
    """A text for plotly, which would read markup in it."""
    return html.escape(str(value), quote=False)


def label(ds: xr.Dataset, name: str) -> str:
    """Name and unit of a variable."""
    unit = ds[name].attrs.get("units", "1")
    return name if unit == "1" else f"{name} [{unit}]"


def assigned(names: Iterable[str], values: tuple[str, ...]) -> dict[str, str]:
    """Give each distinct name a colour or a dash, in order of appearance."""
    distinct = dict.fromkeys(names)
    return {name: values[i % len(values)] for i, name in enumerate(distinct)}


def shade(colour: str, opacity: float) -> str:
    """A transparent version of a colour of `PALETTE`.

    Examples
    --------
    >>> shade("#0072B2", 0.5)
    'rgba(0, 114, 178, 0.5)'
    """
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, {opacity})"
