"""Colours and dashes of all figures, and the texts in them."""

import html
from collections.abc import Iterable, Mapping

import xarray as xr

PLOTLY_CONFIG: Mapping[str, bool] = {"showSendToCloud": False, "displaylogo": False}
"""For ``figure.show(config=...)`` and ``figure.to_html(config=...)``."""

PALETTE = ("#0076B8", "#D55E00", "#009E73", "#A87900", "#3C93C7", "#7F8600", "#9B6D50")
"""Colours of lines. Each has a contrast of at least 3 on a white and on a dark page. The first three are close to Okabe
and Ito's, which colour-blind readers can distinguish."""
DIFFERENCE = "#C46E9E"
"""Colour of a difference between two cells, which belongs to neither alone."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
GREY = "#808080"
"""Colour of lines that belong to no cell: visible on a white and on a black page."""
INK = "#757575"
"""Colour of texts: the grey with a contrast of at least 4.5 on white and on black."""
LABEL = {"bgcolor": "#1f2328", "bordercolor": "#8a929a", "font": {"color": "#ffffff", "size": 12}}
"""Opaque label under the mouse."""


def escaped(value: object) -> str:
    """A text for plotly, which would read markup in it."""
    return html.escape(str(value), quote=False)


def pastel(colour: str, share: float) -> str:
    """A colour of `PALETTE` mixed with white: legible under black text on any page.

    Examples
    --------
    >>> pastel("#000000", 0.25)
    '#bfbfbf'
    """
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(share * part + (1 - share) * 255):02x}" for part in parts)


def hovered(name: str) -> str:
    """A text for a template of plotly, which would read markup and ``%{...}`` in it."""
    return escaped(name).replace("%{", "% {")


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
