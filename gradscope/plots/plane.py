"""The plane in which points are drawn: their first two axes, or of a single axis its values and their numbers."""

from typing import Any

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike, NDArray

from gradscope.analysis.means import Floats

NOT_FINITE = "#C000C0"
"""Colour of words about values that are not finite: magenta, legible on a white and on a black page."""


def in_plane(points: Floats, numbers: ArrayLike) -> tuple[Floats, Floats]:
    """Positions of points to the right and upwards.

    Parameters
    ----------
    points
        Shape ``(n, axis)``.
    numbers
        Number of each point, ``(n,)``; its height where there is one axis.

    Examples
    --------
    >>> right, up = in_plane(np.array([[1.0, 2.0, 3.0]]), [0])
    >>> right.tolist(), up.tolist()
    ([1.0], [2.0])
    """
    if points.shape[-1] == 1:
        return points[..., 0], np.asarray(numbers, dtype=np.float64)
    return points[..., 0], points[..., 1]


def plane_titles(axes: int, what: str) -> tuple[str, str]:
    """Titles to the right and upwards, for points with a number of axes; `what` has the numbers of `in_plane`."""
    return "axis 0", what if axes == 1 else "axis 1" if axes == 2 else f"axis 1 of {axes}"


def arrows(start: NDArray, shift: NDArray, colour: str, **options: Any) -> go.Scatter:
    """Arrows from positions ``(n, 2)``, by ``(n, 2)``; those that are not finite are left out.

    `options` are those of the trace; a ``text`` for each arrow is shown at its end.
    """
    known = np.isfinite(start).all(axis=1) & np.isfinite(shift).all(axis=1)
    start, shift = start[known], shift[known]
    gap = np.full_like(start, np.nan)
    path = np.stack([start, start + shift, gap], axis=1).reshape(-1, 2)
    if "text" in options:
        options["text"] = [part for text in np.asarray(options["text"])[known] for part in ("", text, "")]
    return go.Scatter(
        x=path[:, 0],
        y=path[:, 1],
        mode="lines+markers",
        line={"color": colour, "width": 1.5},
        marker={"symbol": "arrow", "angleref": "previous", "size": [0, 9, 0] * int(known.sum()), "color": colour},
        **options,
    )
