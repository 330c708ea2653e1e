"""Precision, recall, density and coverage: whether samples lie among real images and reach all of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

NEIGHBOURS = 5
_ROWS = 256
"""Rows of a matrix of distances that are computed at a time."""


@dataclass(frozen=True)
class Fidelity:
    """Values of single images; their means are the metrics.

    The radius of an image's ball is the distance to its fifth nearest neighbour in its own set. Precision and recall:
    arXiv 1904.06991; density and coverage: arXiv 2002.09797.
    """

    precision: NDArray[np.bool_]
    """``(n,)``: the sample lies in some real image's ball."""
    density: NDArray[np.float64]
    """``(n,)``: number of real images in whose balls the sample lies, over `NEIGHBOURS`."""
    recall: NDArray[np.bool_]
    """``(m,)``: the real image lies in some sample's ball."""
    coverage: NDArray[np.bool_]
    """``(m,)``: some sample lies in the real image's ball."""


def radii(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance of each image of ``(n, d)`` to its fifth nearest other one, ``(n,)``; NaN with fewer than six."""
    if len(features) <= NEIGHBOURS:
        return np.full(len(features), np.nan)
    out = np.empty(len(features))
    for first, rows in _distances(features, features):
        out[first : first + len(rows)] = np.partition(rows, NEIGHBOURS, axis=1)[
            :, NEIGHBOURS
        ]  # rank 0: the image itself
    return out


def fidelity(real: NDArray[np.float64], real_radii: NDArray[np.float64], samples: NDArray[np.float64]) -> Fidelity:
    """Compare samples ``(n, d)`` with real images ``(m, d)`` and their `radii`.

    All arrays are empty if either set has fewer than six images.
    """
    if min(len(real), len(samples)) <= NEIGHBOURS:
        real, samples = real[:0], samples[:0]
    inside = np.zeros(len(samples))
    reached, covered = np.zeros(len(real), dtype=bool), np.zeros(len(real), dtype=bool)
    sample_radii = radii(samples)
    for first, rows in _distances(real, samples):
        these = slice(first, first + len(rows))
        in_real_ball = rows <= real_radii[these, None]
        inside += in_real_ball.sum(axis=0)
        covered[these] = in_real_ball.any(axis=1)
        reached[these] = (rows <= sample_radii).any(axis=1)
    return Fidelity(precision=inside > 0, density=inside / NEIGHBOURS, recall=reached, coverage=covered)


def _distances(a: NDArray[np.float64], b: NDArray[np.float64]) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for first in range(0, len(a), _ROWS):
        yield first, cdist(a[first : first + _ROWS], b)
