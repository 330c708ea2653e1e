"""SportBalls: pictures of one of four balls on a white canvas, drawn by code.

A version of the data set of GradCheck (arXiv 2406.17399) without files: every image is a function of
``(seed, index)``. Class, radius, position (two axes) and rotation are independent uniform draws, each from its own hash
stream.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CLASSES = ("baseball", "basketball", "soccer ball", "volleyball")
RADIUS = (0.20, 0.36)
"""Range of the ball's radius, as a share of the canvas' side."""
POSITION = (0.37, 0.63)
"""Range of the centre on each axis, as a share of the canvas' side: the largest ball fits at every position."""

Array = NDArray[np.float32]

_WHITE, _BLACK, _SEAM, _RED, _ORANGE, _BLUE, _YELLOW = range(7)
_PAINTS = np.array(
    [
        (0.97, 0.97, 0.95),
        (0.08, 0.08, 0.10),
        (0.62, 0.62, 0.62),
        (0.78, 0.10, 0.12),
        (0.93, 0.46, 0.13),
        (0.10, 0.25, 0.66),
        (0.98, 0.80, 0.12),
    ],
    dtype=np.float32,
)
_LIGHT = np.array([-0.40, -0.45, 0.80], dtype=np.float32)
_SUPERSAMPLING = 2
_BLOCK = 64
"""Number of images that are drawn at once: their arrays fit into the processor's cache."""


@dataclass(frozen=True)
class Factors:
    """Contents of n images; every field has shape ``(n,)``."""

    label: NDArray[np.int64]
    """Index into `CLASSES`."""
    radius: NDArray[np.float64]
    """Share of the canvas side, uniform in `RADIUS`."""
    x: NDArray[np.float64]
    """Column of the centre, share of the canvas' side, uniform in `POSITION`."""
    y: NDArray[np.float64]
    """Row of the centre, likewise."""
    rotation: NDArray[np.float64]
    """In-plane rotation in radians, uniform in [0, 2 pi)."""


def factors(seed: int, index: NDArray[np.integer]) -> Factors:
    """Draw the factors of images by index. Each depends only on ``(seed, index)``; seed < 2**61."""
    index = np.asarray(index, dtype=np.uint64)
    u = [_uniform(seed, stream, index) for stream in range(5)]
    return Factors(
        label=np.floor(u[0] * len(CLASSES)).astype(np.int64),
        radius=RADIUS[0] + u[1] * (RADIUS[1] - RADIUS[0]),
        x=POSITION[0] + u[2] * (POSITION[1] - POSITION[0]),
        y=POSITION[0] + u[3] * (POSITION[1] - POSITION[0]),
        rotation=2 * np.pi * u[4],
    )


def render(drawn: Factors, size: int) -> Array:
    """Draw images of shape ``(n, 3, size, size)``, float32 in [0, 1].

    Pixels are the mean of 2 x 2 subpixels. The ball is the orthographic view of a shaded sphere.
    """
    images = np.empty((len(drawn.label), 3, size, size), dtype=np.float32)
    order = np.argsort(drawn.label, kind="stable")
    for first in range(0, len(order), _BLOCK):
        block = order[first : first + _BLOCK]
        images[block] = _render(Factors(*(values[block] for values in vars(drawn).values())), size)
    return images


def _render(drawn: Factors, size: int) -> Array:
    """The same for images that are sorted by label."""
    side = size * _SUPERSAMPLING
    grid = ((np.arange(side, dtype=np.float32) + 0.5) / side)[None]
    radius = drawn.radius[:, None].astype(np.float32)
    dx = (grid - drawn.x[:, None].astype(np.float32)) / radius
    dy = (grid - drawn.y[:, None].astype(np.float32)) / radius
    ball = dx[:, None, :] ** 2 + dy[:, :, None] ** 2 < 1
    rows = ball.sum(axis=2)  # subpixels of the ball: in a row,
    counts = rows.sum(axis=1)  # and in an image

    px, py = np.broadcast_to(dx[:, None, :], ball.shape)[ball], np.repeat(dy.ravel(), rows.ravel())
    pz = np.sqrt(np.maximum(1 - px**2 - py**2, 0))
    shade = np.float32(0.45) + np.float32(0.55) * np.clip(px * _LIGHT[0] + py * _LIGHT[1] + pz * _LIGHT[2], 0, 1)
    cos, sin = (np.repeat(f(drawn.rotation).astype(np.float32), counts) for f in (np.cos, np.sin))
    point = np.stack([cos * px + sin * py, cos * py - sin * px, pz])

    paint = np.empty(len(px), dtype=np.intp)
    ends = np.searchsorted(drawn.label, range(len(_TEXTURES) + 1))
    before = np.concatenate([[0], np.cumsum(counts)])[ends]
    for texture, start, stop in zip(_TEXTURES, before, before[1:], strict=False):
        paint[start:stop] = texture(point[:, start:stop])

    canvas = np.ones((3, *ball.shape), dtype=np.float32)
    for channel, value in zip(canvas, _PAINTS.T, strict=True):
        channel[ball] = value[paint] * shade
    a, b, c, d = (
        canvas[..., i::2, j::2] for i in range(2) for j in range(2)
    )  # in this order: another one rounds differently
    mean: Array = np.multiply(a + b + c + d, np.float32(0.25))
    return np.moveaxis(mean, 0, 1)


def _uniform(seed: int, stream: int, index: NDArray[np.integer]) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1) from the finaliser of SplitMix64 on (seed, stream, index)."""
    with np.errstate(over="ignore"):
        key = _mix(np.uint64(seed % 2**64) * np.uint64(8) + np.uint64(stream))
        return (_mix(key ^ _mix(index)) >> np.uint64(11)) * 2.0**-53


def _mix(z):
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


# A texture maps points of the unit sphere, shape (3, n), z towards the viewer, to paints: indices into _PAINTS, (n,).


def _paint(base: int, *layers: tuple[NDArray[np.bool_], int]) -> NDArray[np.intp]:
    painted = np.full(layers[0][0].shape, base)
    for where, paint in layers:
        painted[where] = paint
    return painted


def _baseball(p: Array) -> NDArray[np.intp]:
    distance = np.hypot(np.abs(p[0]) - 1.30, p[1]) - 0.82
    stitch = np.sin(26 * np.arctan2(p[1], 1.30 - np.abs(p[0]))) > 0
    return _paint(_WHITE, (np.abs(distance) < np.where(stitch, 0.13, 0.055), _RED))


def _basketball(p: Array) -> NDArray[np.intp]:
    arcs = np.abs(np.hypot(np.abs(p[0]) - 1.25, p[1]) - 0.80)
    seams = np.minimum(np.minimum(np.abs(p[0]), np.abs(p[1])), arcs) < 0.055
    return _paint(_ORANGE, (seams, _BLACK))


def _soccer_ball(p: Array) -> NDArray[np.intp]:
    pentagon = (_ICOSAHEDRON @ p).max(axis=0) > 0.925
    nearest, second = np.full((2, p.shape[1]), -np.inf, dtype=np.float32)
    for hexagon in _DODECAHEDRON @ p:
        np.maximum(second, np.minimum(nearest, hexagon), out=second)
        np.maximum(nearest, hexagon, out=nearest)
    return _paint(_WHITE, (nearest - second < 0.035, _SEAM), (pentagon, _BLACK))


def _volleyball(p: Array) -> NDArray[np.intp]:
    q = _DIAGONAL @ p
    n = q.shape[1]
    face = np.abs(q).argmax(axis=0) * n + np.arange(n)
    q = np.concatenate([q, q[:2]])  # the other two axes follow a face's own
    across = np.abs(q.take(face + n) / q.take(face))
    along = np.abs(q.take(face + 2 * n) / q.take(face))
    seam = np.maximum(across, along) > 0.92
    return _paint(_BLUE, (across < 0.36, _YELLOW), (seam, _WHITE))


def _polyhedra() -> tuple[Array, Array]:
    """Unit vertices of an icosahedron with one vertex towards the viewer, (12, 3), and of its dual, (20, 3)."""
    ring = np.arange(5) * 2 * np.pi / 5
    z = 1 / np.sqrt(5)
    upper = np.stack([np.cos(ring), np.sin(ring), np.full(5, 0.5)], axis=1) * 2 * z
    icosahedron = np.concatenate([[[0, 0, 1]], upper, -upper, [[0, 0, -1]]])
    near = icosahedron @ icosahedron.T > 0.4
    faces = [
        icosahedron[[i, j, k]].sum(axis=0)
        for i in range(12)
        for j in range(i + 1, 12)
        for k in range(j + 1, 12)
        if near[i, j] and near[j, k] and near[i, k]
    ]
    dodecahedron = np.array(faces) / np.linalg.norm(faces, axis=1, keepdims=True)
    return icosahedron.astype(np.float32), dodecahedron.astype(np.float32)


_ICOSAHEDRON, _DODECAHEDRON = _polyhedra()
# Rotation that turns a cube's corner towards the viewer: three faces of the volleyball are seen.
_DIAGONAL = np.array(
    [[1 / 2**0.5, 1 / 6**0.5, 1 / 3**0.5], [-1 / 2**0.5, 1 / 6**0.5, 1 / 3**0.5], [0, -2 / 6**0.5, 1 / 3**0.5]],
    dtype=np.float32,
)
_TEXTURES: tuple[Callable[[Array], NDArray[np.intp]], ...] = (_baseball, _basketball, _soccer_ball, _volleyball)
