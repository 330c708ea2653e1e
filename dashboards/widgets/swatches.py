"""Swatches: the line style of a cell in the figures, as a small picture beside its name."""

from urllib.parse import quote

from gradscope.plots.cell_style import Look

_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}
_MARKERS = {
    "circle": "<circle cx='15' cy='6' r='3.5'/>",
    "square-open": "<rect x='12' y='3' width='6' height='6' fill='none'/>",
    "diamond": "<path d='M15 1.5 19.5 6 15 10.5 10.5 6Z'/>",
    "triangle-up-open": "<path d='M15 2 19 9.5H11Z' fill='none'/>",
    "x": "<path d='M12 3 18 9M18 3 12 9'/>",
}


def swatch(look: Look) -> str:
    """A line with its marker, as the source of an image: an SVG of 30 by 12 pixels."""
    dashes = f" stroke-dasharray='{_DASHES[look.dash]}'" if _DASHES[look.dash] else ""
    return "data:image/svg+xml," + quote(
        "<svg xmlns='http://www.w3.org/2000/svg' width='30' height='12'>"
        f"<g stroke='{look.colour}' fill='{look.colour}' stroke-width='{look.width:g}'>"
        f"<path d='M0 6H30'{dashes}/><g stroke-width='1.5'>{_MARKERS[look.symbol]}</g></g></svg>",
        safe="/:='<> ",
    )
