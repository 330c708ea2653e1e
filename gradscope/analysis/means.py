"""Means of what is finite, and their intervals by Student's t."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradscope.intervals import student

Floats = NDArray[np.float64]


class Mean(NamedTuple):
    """Means with their interval, each without the axis of the samples."""

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """Finite samples."""


def row_means(values: Floats) -> Floats:
    """Mean of what is finite in each row of ``(rows, columns)``; NaN where nothing is."""
    finite = np.isfinite(values)
    counts = finite.sum(axis=1)
    return np.asarray(np.where(finite, values, 0).sum(axis=1) / np.where(counts > 0, counts, np.nan))


def mean_interval(values: ArrayLike, axis: int = 0, level: float = 0.95) -> Mean:
    r"""Mean over samples with Student's t interval, :math:`\bar x \pm t_{n-1} s / \sqrt n`.

    The percentile bootstrap is too short where samples are few: at N = 8 it covers 0.89 of normal means in place of
    0.95. A value that is not finite does not count at its timestep; there is no interval below two finite ones.

    Parameters
    ----------
    values
        Any shape, with the samples along `axis`.
    level
        Coverage, between 0 and 1.

    Examples
    --------
    >>> mean_interval([1.0, 2.0, 3.0]).low.round(2)
    np.float64(-0.48)
    """
    x = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0)
    finite = np.isfinite(x)
    n = finite.sum(axis=0)
    # Deviations are taken from a value of the data, and in its scale: tiny and huge numbers keep their spread.
    scale = np.where(finite, np.abs(np.where(finite, x, 0)), 0).max(axis=0, initial=0)
    scale = np.where(scale > 0, scale, 1.0)
    x = np.where(finite, x, 0) / scale
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = x.sum(axis=0) / n
        spread = np.sqrt((np.where(finite, x - mean, 0) ** 2).sum(axis=0) / (n - 1))
        spread = np.where(spread <= 1e-14 * np.abs(mean), 0, spread)  # rounding of equal values
        half = student(level, n - 1) * spread / np.sqrt(n)
    return Mean(mean * scale, (mean - half) * scale, (mean + half) * scale, n)
