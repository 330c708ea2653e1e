"""The layout that figures share: size, title, legend, the timestep axis and the thresholds of signatures."""

from collections.abc import Sequence
from itertools import product
from math import ceil
from typing import NamedTuple, TypeVar

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from gradscope.analysis.signatures import CURVES
from gradscope.plots.draft import Draft
from gradscope.plots.style import GREY, INK, LABEL
from probes.catalogue import CATALOGUE

TIMESTEP = "timestep t, in sampling order"
"""Title of the timestep axis."""

Drawn = TypeVar("Drawn", bound=go.Figure | Draft)

_RULE, _CLEAR = "rgba(128, 128, 128, 0.3)", "rgba(0, 0, 0, 0)"
MARGIN = 100
"""Pixels of the right margin with names of thresholds."""
_ENTRIES_PER_ROW = 3
"""Entries in one row of a legend on a narrow page."""


def finish(figure: Drawn, height: int) -> Drawn:
    """Set the height in pixels, and colours that are legible on a white and on a black page."""
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"color": INK, "size": 12},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        hoverlabel={"namelength": -1, **LABEL},
        modebar={"bgcolor": _CLEAR, "color": INK},
    )
    figure.update_annotations(font={"size": 12})
    figure.update_xaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True)
    figure.update_yaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True, ticklabelstandoff=4)
    return figure


def title_line(figure: go.Figure, title: str) -> go.Figure:
    """Put one line above the figure; it may hold plotly's markup."""
    line = {"text": title, "font_size": 12, "x": 0, "y": 1, "yanchor": "top", "pad": {"l": 8, "t": 8}}
    return figure.update_layout(title=line)


def legend_above(figure: go.Figure | Draft, entries: int) -> int:
    """Put the legend above the figure, and return its height in pixels."""
    figure.update_layout(
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
            "tracegroupgap": 0, "font": {"size": 11},
        }
    )  # fmt: skip
    return 20 * ceil(entries / _ENTRIES_PER_ROW)


def along_t(figure: Drawn, timestep: ArrayLike, **lowest: int) -> Drawn:
    """Let all horizontal axes run over timesteps in sampling order, and mark the figure for the dashboard's cursor.

    Parameters
    ----------
    timestep
        All timesteps of the store, so that every figure of the store has the same limits.
    lowest
        Row and column of the subplot whose axis gets the title.
    """
    last, first = np.min(timestep), np.max(timestep)
    room = 0.02 * max(first - last, 1)
    figure.update_xaxes(range=[first + room, last - room])
    figure.update_xaxes(title={"text": TIMESTEP}, **lowest)
    figure.update_layout(meta={"timestep": True})
    return figure


def edges(timestep: ArrayLike) -> dict[float, tuple[float, float]]:
    """The interval around each timestep that reaches half way to its neighbours."""
    times = np.asarray(timestep, dtype=np.float64)
    middles = (times[1:] + times[:-1]) / 2
    first, last = np.append(times[:1], middles), np.append(middles, times[-1:])
    return {t: (a, b) for t, a, b in zip(times.tolist(), first.tolist(), last.tolist(), strict=True)}


def nearest_curve(figure: go.Figure | Draft) -> None:
    """Show the numbers of the nearest curve alone, however far the mouse is from it."""
    figure.update_layout(hovermode="closest", hoverdistance=-1)


class Threshold(NamedTuple):
    """The value beyond which a diagnostic shows a failure signature."""

    signature: str
    side: str
    """``below`` or ``above``: the side that fails."""
    value: float


def thresholds_of(name: str) -> list[Threshold]:
    """The thresholds of a diagnostic, from the table of diagnostics."""
    values = row.thresholds if (row := CATALOGUE.get(name)) else {}
    return [Threshold(found.name, found.side, values[found.name]) for found in CURVES if found.name in values]


def thresholds(
    figure: go.Figure | Draft,
    name: str,
    low: float,
    high: float,
    axes: Sequence[str] = ("y",),
    logarithmic: bool = False,
) -> None:
    """Name each threshold of a diagnostic in the right margin, with an arrow to its place on the vertical axis.

    A threshold far from the values would squeeze the curves: it is named at that end of the axis, with a triangle.

    Parameters
    ----------
    low, high
        The smallest and the largest value that is drawn; of a logarithmic axis, its limits.
    axes
        The vertical axes beside which the names stand.
    logarithmic
        Whether these axes are.
    """
    found = thresholds_of(name)
    if not found or not np.isfinite([low, high]).all():
        return
    place = np.log10 if logarithmic else np.asarray
    ends = place([low, high])
    room = 0.0 if logarithmic else ends[1] - ends[0]
    for axis, threshold in product(axes, found):
        y = float(place(threshold.value))
        words = f"{threshold.signature}<br>{threshold.side} {threshold.value:g}"
        about = {"font": {"size": 10}, "align": "left", "x": 1, "xref": "paper", "xanchor": "left"}
        if ends[0] - room <= y <= ends[1] + room:
            arrow = {"ax": 12, "ay": 0, "arrowcolor": GREY, "arrowhead": 2, "arrowwidth": 1.25}
            figure.add_annotation(text=words, y=y, yref=axis, **about, **arrow)
        else:
            end, sign, anchor = (0, "▾", "bottom") if y < ends[0] else (1, "▴", "top")
            at = {"y": end, "yref": f"{axis} domain", "yanchor": anchor, "xshift": 8, "showarrow": False}
            figure.add_annotation(text=f"{sign} {words}", **about, **at)
    figure.update_layout(margin={"r": MARGIN})
