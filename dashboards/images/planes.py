"""Points and sets of points in the plane of their first two axes, with gradients as arrows."""

import numpy as np
from numpy.typing import NDArray

from dashboards.images.canvas import Canvas
from dashboards.images.tensors import MAGENTA, MAPS, Drawn, Floats, Pixels, Tensors, largest, of_limit, own
from gradscope.plots.style import PALETTE

SIZE = 160
"""Height and width of a tile in pixels."""
_MARGIN = 24
_ARROW = 0.2
"""Length of the longest arrow, as a share of the tile."""
_HEAD = 5.0
_COLOUR, _ARROW_COLOUR, _CROWD, _AXIS = PALETTE[0], PALETTE[1], "#B0B0B0", "#DCDCDC"


def tiles(tensors: Tensors) -> dict[str, Drawn]:
    """Tiles of points ``(rows, axis)`` or sets of points ``(rows, point, axis)``, by tensor.

    Arrows start at x_t; where it is not stored, in the middle. The limit of positions is the largest coordinate, that
    of arrows the length of the longest; both have the same length on every tile.
    """
    sets = {name: _as_sets(values) for name, values in tensors.values.items()}
    crowd = {name: tensors.crowd.get(name, np.empty((len(x), 0, x.shape[-1]))) for name, x in sets.items()}
    ends = {name: _ends(tensors, name, x, crowd[name]) for name, x in sets.items()}
    found = {}
    for name, x in sets.items():
        at = "x_t" if name in MAPS and "x_t" in sets else name
        tiles = []
        for row, end in enumerate(ends[name]):
            plane = _Plane(ends[at][row], crowd[at][row], tensors.sample)
            if name not in MAPS:
                plane.points(x[row])
            else:
                start = sets["x_t"][row] if at == "x_t" else np.zeros_like(x[row])
                plane.arrows(start, x[row], end)
            tiles.append(plane.pixels())
        found[name] = np.stack(tiles), ends[name]
    return found


def limits(name: str, stored: Floats, channel: int | None = None) -> NDArray[np.float64]:
    """The limit of each row by its own values, without the points around it."""
    sets = _as_sets(stored)
    return own(_lengths(sets) if name in MAPS else sets[..., :2], largest)


def finals(samples: Floats, first: int = 0, crowd: Floats | None = None) -> Pixels:
    """Tiles of final samples, which share one limit: points among the crowd, or sets of points.

    Parameters
    ----------
    samples
        ``(n, axis)`` or ``(n, point, axis)``.
    first
        Number of the first sample.
    crowd
        All final points, ``(samples, axis)``.
    """
    sets = _as_sets(samples)
    others = np.empty((0, sets.shape[-1])) if crowd is None else crowd
    end = largest(np.concatenate([sets[..., :2].reshape(-1), others[..., :2].reshape(-1)]))
    tiles = []
    for sample, points in enumerate(sets, first):
        plane = _Plane(end, others, sample)
        plane.points(points)
        tiles.append(plane.pixels())
    return np.stack(tiles)


def _as_sets(values: Floats) -> Floats:
    """Sets of points, ``(n, point, axis)``; a single point is a set of one."""
    return (values if values.ndim == 3 else values[:, None]).astype(np.float64)


def _ends(tensors: Tensors, name: str, sets: Floats, crowd: Floats) -> NDArray[np.float64]:
    """The limit of each row, of positions or of the lengths of arrows."""
    if name in MAPS:
        return tensors.ends(name, _lengths(sets), largest)
    return tensors.ends(name, np.concatenate([sets, crowd], axis=1)[..., :2], largest)


def _lengths(sets: Floats) -> Floats:
    return np.asarray(np.hypot.reduce(sets[..., :2], axis=-1))


class _Plane:
    """One tile: two axes, or of a single axis its values to the right and their numbers from top to bottom."""

    def __init__(self, end: float, crowd: Floats, sample: int) -> None:
        self.canvas, self.end, self.sample = Canvas(SIZE, SIZE), end, sample
        self.rows = max(len(crowd), sample + 1) if len(crowd) else 0
        middle = SIZE / 2
        self.canvas.box(middle, 0, middle + 1, SIZE, _AXIS)
        if crowd.shape[-1] > 1:
            self.canvas.box(0, middle, SIZE, middle + 1, _AXIS)
        at = self._at(crowd, np.arange(len(crowd)), self.rows)
        self.canvas.dots(at[:, 0], at[:, 1], _CROWD, 2)

    def points(self, points: Floats) -> None:
        at = self._own(points)
        self.canvas.dots(at[:, 0], at[:, 1], _COLOUR, 4 if len(points) == 1 else 2.5)
        self._mark(points)

    def arrows(self, start: Floats, arrows: Floats, longest: float) -> None:
        """Arrows from points; their colour differs from that of the points."""
        at = self._own(start)
        shift = np.zeros_like(at)
        shares = of_limit(arrows[:, :2], longest) * _ARROW * SIZE
        shift[:, : shares.shape[1]] = shares * [1, -1][: shares.shape[1]]
        self.canvas.dots(at[:, 0], at[:, 1], _COLOUR, 3.5 if len(start) == 1 else 2)
        self.canvas.segments(at, at + shift, _ARROW_COLOUR, 2 if len(start) == 1 else 1.5)
        length = np.hypot(*shift.T)[:, None]
        back = -shift / np.where(length > 0, length, 1) * np.minimum(_HEAD, length / 2)
        for turn in (np.pi / 6, -np.pi / 6):
            cos, sin = np.cos(turn), np.sin(turn)
            self.canvas.segments(at + shift, at + shift + back @ np.array([[cos, sin], [-sin, cos]]), _ARROW_COLOUR)
        self._mark(start, arrows)

    def pixels(self) -> Pixels:
        return self.canvas.pixels()

    def _own(self, points: Floats) -> Floats:
        """Positions of the sample's own points in pixels."""
        if len(points) == 1 and self.rows:
            return self._at(points, np.array([self.sample]), self.rows)
        return self._at(points, np.arange(len(points)), len(points))

    def _at(self, points: Floats, numbers: NDArray[np.int64], count: int) -> Floats:
        shares = of_limit(points[:, :2], self.end)
        if shares.shape[1] == 1:
            shares = np.stack([shares[:, 0], 1 - 2 * (numbers + 0.5) / max(count, 1)], axis=1)
        return SIZE / 2 + (SIZE / 2 - _MARGIN) * shares * [1, -1]

    def _mark(self, *values: Floats) -> None:
        """A magenta frame where values are not finite, since these have no place."""
        if not all(np.isfinite(each).all() for each in values):
            self.canvas.frame(MAGENTA, 4)
