"""Confidence intervals."""

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binomtest


def wilson(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share: lower and upper bounds, in the broadcast shape of the arguments.

    Without trials both are NaN.
    """

    def bounds(k: int, n: int) -> tuple[float, float]:
        if n == 0:
            return np.nan, np.nan
        interval = binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
        return interval.low, interval.high

    low, high = np.vectorize(bounds, otypes=[float, float])(successes, trials)
    return low, high
