"""The layout that figures share: size, title, legend, the timestep axis and the thresholds of signatures."""

from math import ceil

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from gradscope.analysis.signatures import CURVES
from gradscope.plots.style import GREY, INK
from probes.catalogue import CATALOGUE

TIMESTEP = "timestep t, in sampling order"
"""Title of the timestep axis."""

_RULE, _CLEAR = "rgba(128, 128, 128, 0.3)", "rgba(0, 0, 0, 0)"
_ENTRIES_PER_ROW = 3
"""Entries in one row of a legend on a narrow page."""


def finish(figure: go.Figure, height: int) -> go.Figure:
    """Set the height in pixels, and colours that are legible on a white and on a black page."""
    figure.update_layout(
        height=height,
        margin={"l": 60, "r": 20, "t": 50, "b": 50},
        font={"color": INK, "size": 12},
        paper_bgcolor=_CLEAR,
        plot_bgcolor=_CLEAR,
        hoverlabel={"namelength": -1},
        modebar={"bgcolor": _CLEAR, "color": INK},
    )
    figure.update_annotations(font_size=12)
    figure.update_xaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True)
    figure.update_yaxes(gridcolor=_RULE, zerolinecolor=_RULE, automargin=True, ticklabelstandoff=4)
    return figure


def title_line(figure: go.Figure, title: str) -> go.Figure:
    """Put one line above the figure; it may hold plotly's markup."""
    line = {"text": title, "font_size": 12, "x": 0, "y": 1, "yanchor": "top", "pad": {"l": 8, "t": 8}}
    return figure.update_layout(title=line)


def legend_above(figure: go.Figure, entries: int) -> int:
    """Put the legend above the figure, and return its height in pixels."""
    figure.update_layout(
        legend={
            "orientation": "h", "x": 0, "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
            "tracegroupgap": 0, "font": {"size": 11},
        }
    )  # fmt: skip
    return 20 * ceil(entries / _ENTRIES_PER_ROW)


def along_t(figure: go.Figure, timestep: ArrayLike, **lowest: int) -> go.Figure:
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
    figure.update_xaxes(title=TIMESTEP, **lowest)
    return figure.update_layout(meta={"timestep": True})


def thresholds(figure: go.Figure, name: str) -> None:
    """Draw a dotted line, with its name, for each failure signature that compares this diagnostic with a threshold."""
    values = row.thresholds if (row := CATALOGUE.get(name)) else {}
    for signature in (s for s in CURVES if s.name in values):
        value = values[signature.name]
        figure.add_hline(y=value, line={"color": GREY, "dash": "dot", "width": 1.25})
        figure.add_annotation(
            text=f"{signature.name}: {signature.side} {value:g}",
            x=0.005, xref="x domain", xanchor="left", y=value, yanchor="bottom", showarrow=False,
        )  # fmt: skip
