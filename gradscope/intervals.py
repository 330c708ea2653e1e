"""Confidence intervals."""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray


def wilson(
    successes: ArrayLike, trials: ArrayLike, level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's score interval of a share (doi:10.1080/01621459.1927.10502953).

    Lower and upper bounds have the broadcast shape of the arguments; without trials they are NaN.

    Examples
    --------
    >>> low, high = wilson(8, 10)
    >>> round(float(low), 3), round(float(high), 3)
    (0.49, 0.943)
    """
    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    z = normal(level)
    with np.errstate(invalid="ignore", divide="ignore"):
        p = k / n
        middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
        low, high = np.where(k == 0, 0, middle - half), np.where(k == n, 1, middle + half)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def over_groups(successes: ArrayLike, trials: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    r"""Mean share of groups that vary among themselves, with an interval for a further group's expected share.

    For example the judge's accuracy over guides that differ by their seeds: samples vary within a guide, and guides
    vary, too. The groups' own shares hold both kinds of variation, so the interval is Student's over groups,
    :math:`\bar p \pm t_{k-1} s / \sqrt k`. It is widened to Wilson's for all trials together, which is right if the
    groups do not differ; groups that happen to agree have no narrower one. Of a single group only Wilson's is known.

    Parameters
    ----------
    successes, trials
        Of each group, ``(groups,)``.
    level
        Coverage.

    Returns
    -------
    tuple[float, float, float]
        Mean of the groups' shares, lower and upper bound, in [0, 1].

    Examples
    --------
    >>> [round(value, 2) for value in over_groups([90, 70, 80], [100, 100, 100])]
    [0.8, 0.55, 1.0]
    """
    k, n = np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    shares = k / n
    mean = float(shares.mean())
    low, high = (float(bound) for bound in wilson(mean * n.sum(), n.sum(), level))
    if len(shares) > 1:
        half = float(student(level, len(shares) - 1)) * float(shares.std(ddof=1)) / len(shares) ** 0.5
        low, high = min(low, mean - half), max(high, mean + half)
    return mean, max(low, 0.0), min(high, 1.0)


def exact(successes: ArrayLike, trials: ArrayLike, level: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Clopper and Pearson's interval of a share (doi:10.1093/biomet/26.4.404), which covers at any level.

    Without trials both bounds are NaN. ``successes`` need not be whole numbers.
    """
    from scipy.special import betaincinv  # here: scipy is slow to load

    k, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    tail = (1 - level) / 2
    with np.errstate(invalid="ignore"):
        low = np.where(k > 0, betaincinv(np.where(k > 0, k, 1), n - k + 1, tail), 0)
        high = np.where(k < n, betaincinv(k + 1, np.where(k < n, n - k, 1), 1 - tail), 1)
    return np.where(n == 0, np.nan, low), np.where(n == 0, np.nan, high)


def resampled(n: int, replicates: int, seed: int = 0) -> NDArray[np.int64]:
    """Count how often each of n items is drawn in each bootstrap replicate, ``(replicates, n)``; rows sum to n."""
    drawn = np.random.default_rng(seed).integers(0, n, (replicates, n))
    return np.stack([np.bincount(row, minlength=n) for row in drawn])


def bootstrap(estimate: float, replicates: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Bootstrap interval: the estimate plus quantiles of the replicates' deviations from their mean.

    A distance between sets grows if one of them is resampled, because duplicates make it less diverse. Deviations from
    the replicates' mean do not have that bias; percentiles of the replicates do. NaN if a replicate is not finite.
    """
    values = np.asarray(replicates, dtype=np.float64)
    if not np.isfinite(values).all():
        return np.nan, np.nan
    low, high = estimate + np.quantile(values - values.mean(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def normal(level: float) -> float:
    """Half-width of the normal distribution's two-sided interval in standard errors."""
    return NormalDist().inv_cdf((1 + level) / 2)


def student(level: float, freedom: ArrayLike) -> NDArray[np.float64]:
    """Half-width of Student's two-sided interval in standard errors; NaN without a degree of freedom."""
    from scipy.special import stdtrit  # here: scipy is slow to load

    degrees = np.asarray(freedom, dtype=np.float64)
    return np.where(degrees > 0, stdtrit(np.where(degrees > 0, degrees, 1), (1 + level) / 2), np.nan)


def transfer_ratio(
    guide: ArrayLike, judge: ArrayLike, chance: float, level: float = 0.95, draws: int = 40_000
) -> tuple[float, float, float]:
    """Share of a guide's success that an independent judge confirms, with its interval.

    (judge's accuracy - chance) / (guide's accuracy - chance). The interval holds the quantiles of the ratio under the
    posterior of the four paired outcomes, a Dirichlet distribution with Jeffreys' prior (1/2 each). Unlike a
    bootstrap, it has a width if guide and judge agree on all samples. All values are NaN if the guide's own accuracy is
    not above chance (its Wilson interval reaches chance). A bound is NaN if the guide's accuracy reaches chance in too
    many draws.

    Parameters
    ----------
    guide, judge
        Whether each sees the target class, ``(samples,)``.
    chance
        Accuracy of guessing.
    level
        Coverage of the interval.
    draws
        Number of draws from the posterior.

    Examples
    --------
    >>> always = [True] * 64
    >>> [round(value, 1) for value in transfer_ratio(always, always, 0.25)]
    [1.0, 1.0, 1.0]
    """
    first, second = np.asarray(guide, dtype=bool), np.asarray(judge, dtype=bool)
    n = len(first)
    if not n or wilson(first.sum(), n)[0] <= chance:
        return np.nan, np.nan, np.nan
    outcomes = np.bincount(2 * first + second, minlength=4)  # neither, judge alone, guide alone, both
    p = np.random.default_rng(0).dirichlet(outcomes + 0.5, draws)
    own, seen = p[:, 2] + p[:, 3] - chance, p[:, 1] + p[:, 3] - chance
    # Draws with the guide at chance have no ratio. They count as beyond the bound: too many of them leave no bound.
    known = own > 0
    ratio = np.divide(seen, own, out=np.full(draws, np.nan), where=known)
    low, high = (
        float(np.quantile(np.where(known, ratio, end), (1 + side * level) / 2, method="nearest"))
        for side, end in ((-1, -np.inf), (1, np.inf))
    )
    estimate = float((second.mean() - chance) / (first.mean() - chance))
    low, high = (bound if np.isfinite(bound) else np.nan for bound in (low, high))
    return estimate, low, high
