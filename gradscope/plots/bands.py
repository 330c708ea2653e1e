"""Curves with bands: filled polygons between gaps, and a logarithmic axis that leaves room for the curves."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from gradscope.plots.draft import Draft


def band(rows: pd.DataFrame, low: str, high: str, colour: str, group: str) -> dict[str, Any]:
    """A trace that fills the area between two columns: a polygon for each run of timesteps at which both are finite.

    Parameters
    ----------
    group
        Legend group of the curve, which a click on the legend hides together with its bands.
    """
    x: list[ArrayLike] = [()]
    y: list[ArrayLike] = [()]
    timestep, lower, upper = (rows[name].to_numpy(np.float64) for name in ("timestep", low, high))
    for run in _runs(np.isfinite(lower) & np.isfinite(upper)):
        x += [timestep[run], timestep[run][::-1], [np.nan]]
        y += [upper[run], lower[run][::-1], [np.nan]]
    return {
        "type": "scatter",
        "x": np.concatenate(x, dtype=np.float64),
        "y": np.concatenate(y, dtype=np.float64),
        "fill": "toself",
        "fillcolor": colour,
        "line": {"width": 0},
        "legendgroup": group,
        "showlegend": False,
        "hoverinfo": "skip",
        "mode": "lines",
    }


def has_log_axis(numbers: pd.DataFrame) -> bool:
    """Whether the diagnostic spans orders of magnitude and has a mean that a logarithmic axis can show."""
    return numbers.attrs["logarithmic"] and bool((numbers["mean"] > 0).any())


def fit_to_log_axis(numbers: pd.DataFrame, lines: Sequence[str], bands: Sequence[str]) -> tuple[pd.DataFrame, float]:
    """Remove what a logarithmic axis cannot show, and return the axis's lower end.

    Values of lines that are not above 0 become gaps. Bands are cut off two orders of magnitude below the smallest mean:
    bands that reach 0, or vanish, would leave no room for the lines.

    Parameters
    ----------
    lines
        Columns that are drawn as lines, ``mean`` among them.
    bands
        Columns that are ends of bands.
    """
    lines, bands, numbers = list(lines), list(bands), numbers.copy()
    numbers[lines] = numbers[lines].where(numbers[lines] > 0)
    smallest = numbers["mean"].min()
    bottom = max(1e-2 * smallest, min(numbers[bands].min(axis=None), smallest))
    numbers[bands] = numbers[bands].clip(lower=bottom)
    return numbers, bottom


def set_log_axis(figure: go.Figure | Draft, bottom: float, top: float, room_below: float = 0.0) -> None:
    """Make all vertical axes logarithmic, from `bottom` to a little above `top`.

    Parameters
    ----------
    room_below
        Room below `bottom`, as a share of the axis.
    """
    low, high = np.log10([bottom, top])
    limits = [low - room_below * (high - low), high + 0.05 * (high - low)]
    figure.update_yaxes(type="log", exponentformat="power", range=limits)


def _runs(flags: NDArray[np.bool_]) -> list[NDArray]:
    there = np.flatnonzero(flags)
    return np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if len(there) else []
