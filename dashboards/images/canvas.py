"""A canvas for lines and dots with smooth edges: it is drawn at twice the resolution, then averaged."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from plotly.colors import hex_to_rgb

_FINE = 2
"""Fine pixels for each pixel, along both directions."""
_POINTS = 2**20
"""Largest number of points of one call's lines."""

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]


class Canvas:
    """A white picture. Positions are in pixels, x to the right and y downwards; whatever lies outside is cut off.

    Parameters
    ----------
    height, width
        Size in pixels.
    """

    def __init__(self, height: int, width: int) -> None:
        self.height, self.width = height, width
        self._colours: list[str] = ["#FFFFFF"]
        self._ink = np.zeros((_FINE * height, _FINE * width), dtype=np.uint8)

    def dots(self, x: Floats, y: Floats, colour: str, radius: float) -> None:
        """Draw dots; those whose position is not finite are left out."""
        known = np.isfinite(x) & np.isfinite(y)
        self._stamp(x[known], y[known], colour, radius)

    def segments(self, start: Floats, end: Floats, colour: str, width: float = 1.5) -> None:
        """Draw straight lines between positions ``(n, 2)``; those with an end that is not finite are left out."""
        known = np.isfinite(start).all(axis=1) & np.isfinite(end).all(axis=1)
        start, end = (self._near(each[known]) for each in (start, end))
        counts = 1 + np.ceil(_FINE * np.abs(end - start).max(axis=1, initial=0)).astype(int)
        if counts.sum() > _POINTS:
            counts = np.maximum(1, counts * (_POINTS / counts.sum())).astype(int)
        first = np.repeat(np.cumsum(counts) - counts, counts)
        share = (np.arange(counts.sum()) - first) / np.repeat(np.maximum(counts - 1, 1), counts)
        at = np.repeat(start, counts, axis=0) + share[:, None] * np.repeat(end - start, counts, axis=0)
        self._stamp(at[:, 0], at[:, 1], colour, width / 2)

    def path(self, x: Floats, y: Floats, colour: str, width: float = 1.5) -> None:
        """Draw a line through positions in their order; it has a gap where one is not finite."""
        at = np.stack([x, y], axis=1)
        self.segments(at[:-1], at[1:], colour, width)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """Fill a box."""
        rows, columns = (slice(round(_FINE * a), round(_FINE * b)) for a, b in ((top, bottom), (left, right)))
        self._ink[rows, columns] = self._number(colour)

    def frame(self, colour: str, width: float) -> None:
        """Draw a frame along the edges."""
        self.box(0, 0, self.width, width, colour)
        self.box(0, self.height - width, self.width, self.height, colour)
        self.box(0, 0, width, self.height, colour)
        self.box(self.width - width, 0, self.width, self.height, colour)

    def pixels(self) -> Pixels:
        """The picture, ``(height, width, 3)``."""
        colours = np.array([hex_to_rgb(colour) for colour in self._colours], dtype=np.uint8)
        parts = np.stack([self._ink[row::_FINE, column::_FINE] for row in range(_FINE) for column in range(_FINE)])
        found = colours[parts[0]]
        mixed = (parts != parts[0]).any(axis=0)  # few: only these are averaged
        found[mixed] = np.rint(colours[parts[:, mixed]].mean(axis=0))
        return found

    def _near(self, at: Floats) -> Floats:
        """Positions that are far outside, moved nearer: lines towards them need no points there."""
        size = np.array([self.width, self.height])
        return at.clip(-4 * size, 5 * size)

    def _number(self, colour: str) -> int:
        if colour not in self._colours:
            self._colours.append(colour)
        return self._colours.index(colour)

    def _stamp(self, x: Floats, y: Floats, colour: str, radius: float) -> None:
        height, width = self._ink.shape
        offsets = _disc(radius)
        rows = np.floor(_FINE * self._bounded(y, self.height)).astype(int)[:, None] + offsets[0]
        columns = np.floor(_FINE * self._bounded(x, self.width)).astype(int)[:, None] + offsets[1]
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        self._ink[rows[inside], columns[inside]] = self._number(colour)

    @staticmethod
    def _bounded(values: Floats, size: int) -> Floats:
        return values.clip(-size, 2 * size)


@cache
def _disc(radius: float) -> Sequence[NDArray[np.int64]]:
    """Offsets of the fine pixels of a dot, by row and column."""
    reach = int(np.ceil(_FINE * radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = rows**2 + columns**2 <= (_FINE * radius) ** 2
    return rows[inside], columns[inside]
