"""Confidence intervals."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wilson(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share: lower and upper bounds, in the broadcast shape of the arguments.

    Without trials both are NaN.
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    z = NormalDist().inv_cdf((1 + level) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        low, high = np.where(k == 0, 0, middle - half), np.where(k == n, 1, middle + half)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def resampled(n: int, replicates: int, seed: int = 0) -> NDArray[np.int64]:
    """How often each of n items is drawn in each bootstrap replicate, ``(replicates, n)``; rows sum to n."""
    drawn = np.random.default_rng(seed).integers(0, n, (replicates, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn])


def bootstrap(estimate: float, replicates: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Bounds of the bootstrap: the estimate plus the quantiles of the replicates' deviations from their own mean.

    A distance between sets grows when one of them is resampled, because duplicates make it less diverse. Deviations
    from the replicates' mean are free of that bias; the percentiles of the replicates are not. NaN where a replicate is
    not finite.
    """
    values = np.asarray(replicates, dtype=np.float64)
    if not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = estimate + np.quantile(values - values.mean(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def transfer_ratio(
    guide: ArrayLike, judge: ArrayLike, chance: float, replicates: int = 1000
) -> tuple[float, float, float]:
    """Share of a guide's success that an independent judge confirms, with its 95 % interval.

    (judge's accuracy - chance) / (guide's accuracy - chance), by a paired percentile bootstrap over samples; all NaN
    where the guide's own accuracy is not above chance (its Wilson interval reaches it). A bound is NaN where too many
    replicates of the guide's accuracy reach chance.

    Parameters
    ----------
    guide, judge
        Whether each sees the target class, ``(samples,)``.
    """
    verdicts = np.stack([np.asarray(guide, dtype=bool), np.asarray(judge, dtype=bool)])
    n = verdicts.shape[1]
    if not n or wilson(verdicts[0].sum(), n)[0] <= chance:
        return np.nan, np.nan, np.nan
    own, seen = verdicts @ resampled(n, replicates).T / n - chance
    ratio = np.divide(seen, own, out=np.full(replicates, np.nan), where=own > 0)
    # A replicate in which the guide is at chance may stand anywhere: where there are too many of them, no bound.
    tail = int(0.025 * replicates)
    bounds = (np.sort(np.where(own > 0, ratio, end))[rank] for end, rank in ((-np.inf, tail), (np.inf, -1 - tail)))
    low, high = (float(bound) if np.isfinite(bound) else np.nan for bound in bounds)
    own_accuracy, accuracy = verdicts.mean(axis=1) - chance
    return float(accuracy / own_accuracy), low, high
