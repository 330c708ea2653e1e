"""What the guides believe about one sample along t, in some cells."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from gradscope.analysis.cells import Cell, cell_name
from gradscope.analysis.missing import require
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.plots.cell_style import coordinates, line
from gradscope.plots.draft import Draft
from gradscope.plots.figure_numbers import by_cell, cell_table, full_cells, sample_index, trajectories, without_attrs
from gradscope.plots.layout import along_t, finish, legend_above
from gradscope.plots.style import PALETTE, escaped, label, pastel

_CURVES = ("log_prob", "entropy")
_STRIP, _PANEL, _BETWEEN = 21, 84, 12
"""Heights in pixels of a cell's strip, of a curve's panel, and of the space between them."""
_WIDTH, _LETTER = 400, 7
"""Widths in pixels of the horizontal axis on a narrow page, and of a letter."""
_MOST_CLASSES = 12
"""Largest number of classes in the legend, besides the target."""
_FAINT = 0.35
"""Share of its colour that a class other than the target has; the rest is white."""
_ON_COLOUR = {PALETTE[0]: "white"}
"""Colour of text on a background on which black is hard to read."""


def belief(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int) -> go.Figure:
    """The class that each cell's guide predicts for one sample along t, its log-probability of the target, its entropy.

    Classes other than the target are faint.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        Number of the sample.

    Raises
    ------
    GradscopeError
        The belief was not recorded, or there is no such cell or sample.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=8, timesteps=20)
    >>> ds["entropy"] = -ds.log_prob * np.exp(ds.log_prob)
    >>> belief(ds, [{}], sample=3).layout.yaxis.ticktext
    ('synthetic, x_t, no stabiliser, s = 0.3',)
    """
    return draw_belief(belief_numbers(ds, cells, sample))


def belief_numbers(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int) -> pd.DataFrame:
    """Numbers of `belief`, with the same arguments: one row per cell and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``predicted_class``, the number of the class that the guide predicts, -1 where nothing
        is written; ``log_prob`` of the target class and ``entropy`` in nats. ``attrs``: names of the ``classes``, and
        the number of the ``target``.
    """
    require(ds, "predicted_class", *_CURVES)
    at = sample_index(ds, sample)
    shown = full_cells(ds, cells)
    own = ds[["predicted_class", *_CURVES]].isel(sample=[at])
    parts = [{name: trajectories(own, name, cell)[0] for name in ("predicted_class", *_CURVES)} for cell in shown]
    numbers = cell_table(ds, shown, parts)
    numbers.attrs = {
        "classes": class_names(ds),
        "target": int(ds["label"].values[at]),
        "labels": {name: label(ds, name) for name in _CURVES},
        "coordinates": coordinates(ds),
    }
    return numbers


def draw_belief(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `belief_numbers`."""
    return draft_belief(numbers).figure()


def draft_belief(numbers: pd.DataFrame) -> Draft:
    """`draw_belief`, before plotly checks it."""
    about, parts = numbers.attrs, list(by_cell(without_attrs(numbers)))
    figure = Draft(_axes(len(parts)))
    entries = _strips(figure, parts, about["classes"], about["target"])
    for k, name in enumerate(_CURVES):
        title = {"text": escaped(about["labels"][name]), "font": {"size": 11}}
        figure.update_yaxes(row=2 + k, title=title, nticks=4)
        for cell, rows in parts:
            curve = {
                "x": rows["timestep"].to_numpy(),
                "y": rows[name].to_numpy(np.float32),
                "name": escaped(cell_name(cell)),
                "legendgroup": cell_name(cell),
                "showlegend": k == 0,
                "hovertemplate": "t = %{x}: %{y:.3g}",
                **line(about["coordinates"], cell),
            }
            figure.add_trace(curve, row=2 + k)
    room, under = legend_above(figure, len(parts)), 20 * ceil(entries / 4)
    figure.update_layout(
        legend2={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 11}, "itemclick": False}
    )
    finish(along_t(figure, numbers["timestep"], row=3), _body(len(parts)) + room + under + 70)
    return figure.update_layout(margin={"t": room + under + 10})


def _body(cells: int) -> int:
    """Height of all panels in pixels."""
    return _STRIP * cells + 2 * (_PANEL + _BETWEEN)


@lru_cache(maxsize=32)
def _axes(cells: int) -> dict[str, Any]:
    """The axes of the three panels. They are kept, as plotly takes a while to lay them out: do not change them."""
    heights = [_STRIP * cells, _PANEL, _PANEL]
    grid = make_subplots(3, 1, shared_xaxes=True, row_heights=heights, vertical_spacing=_BETWEEN / _body(cells))
    return {name: axis for name, axis in grid.to_dict()["layout"].items() if name != "template"}


def _strips(figure: Draft, parts: list[tuple[Cell, pd.DataFrame]], classes: list[str], target: int) -> int:
    """Draw a strip of classes for each cell, and their legend; return the number of its entries."""
    seen = np.stack([rows["predicted_class"].to_numpy() for _, rows in parts])
    timestep = parts[0][1]["timestep"].to_numpy()
    names = [escaped(class_name(classes, number)) for number in range(max(len(classes), seen.max() + 1, target + 1))]
    shades = [*(pastel(colour, _FAINT) for colour in PALETTE), *PALETTE]
    ends = pairwise(np.linspace(0, 1, len(shades) + 1))
    figure.add_trace(
        {
            "type": "heatmap",
            "x": timestep,
            "y": np.arange(len(parts)),
            "z": np.where(seen < 0, np.nan, seen % len(PALETTE) + len(PALETTE) * (seen == target)),
            "zmin": 0,
            "zmax": len(shades) - 1,
            "colorscale": [(end, colour) for pair, colour in zip(ends, shades, strict=True) for end in pair],
            "showscale": False,
            "ygap": 4,
            "text": [[names[k] if k >= 0 else "" for k in strip] for strip in seen],
            "hovertemplate": "t = %{x}: %{text}<extra></extra>",
            "hoverongaps": False,
        },
        row=1,
    )
    words = [(x, y, k, word) for y, strip in enumerate(seen) for x, k, word in _words(strip, timestep, names, target)]
    x, y, k, word = zip(*words, strict=True) if words else ((), (), (), ())
    ink = [_ON_COLOUR.get(PALETTE[c % len(PALETTE)], "black") if c == target else "black" for c in k]
    figure.add_trace(
        {
            "x": x,
            "y": y,
            "text": word,
            "mode": "text",
            "textfont": {"color": ink, "size": 11},
            "showlegend": False,
            "hoverinfo": "skip",
        },
        row=1,
    )
    there, counts = np.unique(np.append(seen[seen >= 0], target), return_counts=True)
    shown = sorted({target, *there[np.argsort(-counts, kind="stable")][:_MOST_CLASSES].tolist()})
    for c in shown:
        colour = PALETTE[c % len(PALETTE)] if c == target else pastel(PALETTE[c % len(PALETTE)], _FAINT)
        marker = {"symbol": "square", "size": 12, "color": colour}
        name = f"{c} {names[c]}" + (", the target" if c == target else "")
        figure.add_trace(
            {"x": [None], "y": [None], "mode": "markers", "marker": marker, "name": name, "legend": "legend2"}
        )
    figure.update_yaxes(
        tickvals=list(range(len(parts))),
        ticktext=[escaped(cell_name(cell)) for cell, _ in parts],
        tickfont={"size": 10},
        range=[len(parts) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
        row=1,
    )
    return len(shown)


def _words(
    strip: NDArray[np.int64], timestep: NDArray[np.int64], names: list[str], target: int
) -> Iterator[tuple[float, int, str]]:
    """Middle, class number and word for each stretch of one class.

    The word is the name of the class, or its number if the name is too long. A stretch too short for either is left
    out.
    """
    edges = np.flatnonzero(np.diff(strip, prepend=-2, append=-2))
    for first, last in pairwise(edges):
        room = (last - first) / len(strip) * _WIDTH / _LETTER
        k = int(strip[first])
        full = f"✓ {names[k]}" if k == target else names[k]
        word = full if len(full) < room else str(k)
        if k >= 0 and len(word) < room:
            yield float(timestep[first] + timestep[last - 1]) / 2, k, word
