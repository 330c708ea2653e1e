"""The tensors of one picture, and the limits of their colours or axes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Pixels = NDArray[np.uint8]
Drawn = tuple[Pixels, NDArray[np.float64]]
"""Tiles of one tensor, ``(rows, height, width, 3)``, and the limit of each row."""

MAPS = ("gradient", "update", "direction")
"""Tensors that are shown as maps around zero or as arrows; the others are samples."""
MAGENTA = "#FF00FF"
"""Colour of values that are not finite."""


@dataclass(frozen=True)
class Tensors:
    """Tensors of one sample at one step in some cells, a row for each, and how they are drawn."""

    values: Mapping[str, Floats]
    """By name, ``(rows, *sample)``; zeros where a row is not written."""
    written: NDArray[np.bool_]
    shared: bool = False
    """Whether all rows of a tensor have the same limit."""
    sample: int = 0
    crowd: Mapping[str, Floats] = field(default_factory=dict)
    """For points, the other samples at this step, ``(rows, samples, axes)``; NaN where they are not written."""
    fixed: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Limits that are given, by tensor, ``(rows,)``."""
    log: bool = False
    """Whether the colours of maps are on a symmetric logarithmic scale."""
    channel: int | None = None
    """The channel that maps and images show; None for the mean of maps and the colours of images."""

    def ends(self, name: str, values: Floats, measure: Callable[[Floats], float]) -> NDArray[np.float64]:
        """The limit of each row: that of its own values, that of all rows that are written, or the given one."""
        if name in self.fixed:
            return self.fixed[name]
        if self.shared:
            return np.full(len(values), measure(values[self.written]))
        return own(values, measure)


def own(values: Floats, measure: Callable[[Floats], float]) -> NDArray[np.float64]:
    """The limit of each row by its own values."""
    return np.array([measure(row) for row in values])


def largest(values: Floats) -> float:
    """The largest finite magnitude; 0 where there is none."""
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else 0.0


def of_limit(values: Floats, end: float) -> Floats:
    """Values as shares of a limit; 0 for a limit of 0."""
    return np.asarray(values / end if end > 0 else np.zeros_like(values))
