"""Signals and trajectories as curves: a line for each channel or action, over time or horizon."""

import numpy as np
from numpy.typing import NDArray

from dashboards.images.canvas import Canvas
from dashboards.images.tensors import MAGENTA, Drawn, Floats, Pixels, Tensors, largest, of_limit, own
from gradscope.plots.style import PALETTE

LINES = (*PALETTE[:6], "#000000")
"""Colours of the lines; no more are drawn, so that each has its own. They are on white: the palette's yellow is not."""
HEIGHT, WIDTH = 120, 180
"""Size of a tile in pixels."""
_MARGIN = 5
_AXIS = "#C8C8C8"


def tiles(tensors: Tensors) -> dict[str, Drawn]:
    """Tiles of curves ``(rows, line, along)``, by tensor; a limit is the largest magnitude, which fills the tile."""
    found = {}
    for name, stored in tensors.values.items():
        lines = _shown(stored)
        ends = tensors.ends(name, lines, largest)
        found[name] = np.stack([_tile(row, end) for row, end in zip(lines, ends, strict=True)]), ends
    return found


def limits(name: str, stored: Floats, channel: int | None = None) -> NDArray[np.float64]:
    """The limit of each row by its own values."""
    return own(_shown(stored), largest)


def finals(samples: Floats) -> Pixels:
    """Tiles of final samples ``(n, line, along)``, which share one limit."""
    lines = _shown(samples)
    end = largest(lines)
    return np.stack([_tile(sample, end) for sample in lines])


def _shown(stored: Floats) -> Floats:
    """The lines that are drawn, ``(n, line, along)``, also of a signal without channels."""
    return stored.reshape(len(stored), -1, stored.shape[-1])[:, : len(LINES)].astype(np.float64)


def _tile(lines: Floats, end: float) -> Pixels:
    """One tile. An element that is not finite in any line is a magenta column."""
    canvas = Canvas(HEIGHT, WIDTH)
    count = lines.shape[1]
    for at in np.flatnonzero(~np.isfinite(lines).all(axis=0)):
        left = WIDTH * at / count
        canvas.box(left, 0, max(WIDTH * (at + 1) / count, left + 1), HEIGHT, MAGENTA)
    canvas.box(0, HEIGHT / 2, WIDTH, HEIGHT / 2 + 1, _AXIS)
    for line, colour in zip(lines, LINES, strict=False):
        where, values = _thinned(line)
        x = WIDTH * (where + 0.5) / count
        y = HEIGHT / 2 - (HEIGHT / 2 - _MARGIN) * of_limit(values, end)
        canvas.path(x, y, colour)
        if count <= WIDTH // 12:
            canvas.dots(x, y, colour, 1.5)
    return canvas.pixels()


def _thinned(line: Floats) -> tuple[Floats, Floats]:
    """Positions and values of a line; of a long one the smallest and the largest value for each pixel column."""
    if len(line) <= 4 * WIDTH:
        return np.arange(len(line), dtype=np.float64), line
    starts = np.linspace(0, len(line), WIDTH + 1).astype(int)[:-1]
    with np.errstate(invalid="ignore"):
        both = np.stack([np.minimum.reduceat(line, starts), np.maximum.reduceat(line, starts)], axis=1)
    return np.repeat(starts + len(line) / WIDTH / 2 - 0.5, 2), both.ravel()
