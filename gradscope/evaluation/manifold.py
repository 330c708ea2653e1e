"""Are samples where real images are, and are all real images reached: precision, recall, density, coverage."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

NEIGHBOURS = 5
_ROWS = 256
"""Of a matrix of distances, at a time."""


@dataclass(frozen=True)
class Fidelity:
    """What holds for single images; the means are the metrics.

    The ball of an image reaches to its fifth nearest neighbour in its own set. Precision and recall: arXiv 1904.06991,
    density and coverage: arXiv 2002.09797.
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

    Empty where either are fewer than six.
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
