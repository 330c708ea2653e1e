"""Tests of two cells whose samples are not pairs: the cells have different samples."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradscope.analysis.means import Floats, Mean, finite_mean
from gradscope.analysis.statistics import MINIMUM_SAMPLES, Test, midranks, root
from gradscope.intervals import student, wilson


def mean_difference(a: ArrayLike, b: ArrayLike) -> Mean:
    r"""Mean of b minus mean of a over the first axis, with Welch's 95 % interval; ``n`` is that of the smaller one.

    :math:`\bar b - \bar a \pm t_\nu \sqrt{s_a^2 / n_a + s_b^2 / n_b}` with Welch and Satterthwaite's :math:`\nu`
    (doi:10.1093/biomet/34.1-2.28). Values that are not finite are left out. Fewer than two have no interval.

    Examples
    --------
    >>> mean_difference([1.0, 2.0, 3.0], [3.0, 4.0, 5.0, 6.0]).low.round(2)
    np.float64(0.27)
    """
    (mean_a, part_a, n_a), (mean_b, part_b, n_b) = (_moments(np.asarray(x, dtype=np.float64)) for x in (a, b))
    half = student(0.95, _freedom(part_a, n_a, part_b, n_b)) * np.sqrt(part_a + part_b)
    mean = mean_b - mean_a
    return Mean(mean, mean - half, mean + half, np.minimum(n_a, n_b))


def independent_means(a: ArrayLike, b: ArrayLike) -> Test:
    r"""Welch's test of the mean of b minus that of a, shapes ``(samples of a,)`` and ``(samples of b,)``.

    Estimate, interval and p come from one method, so p is below 0.05 exactly where the 95 % interval excludes 0. Values
    that are not finite are left out. The effect is Cliff's delta in [-1, 1] (doi:10.1037/0033-2909.114.3.494): the
    share of pairs of a sample of b and a sample of a in which that of b is larger, minus the share in which it is
    smaller.

    Examples
    --------
    >>> test = independent_means(np.linspace(0, 1, 64), np.linspace(0.5, 1.5, 100))
    >>> test.n, round(test.estimate, 2), test.p < 0.05
    (164, 0.5, True)
    """
    from scipy.special import stdtr

    every = [np.asarray(x, dtype=np.float64) for x in (a, b)]
    first, second = (x[np.isfinite(x)] for x in every)
    sizes = len(first), len(second)
    lost = sum(map(len, every)) - sum(sizes)
    note = "; ".join(filter(None, [_too_few(*sizes), f"{lost} samples not finite" if lost else ""]))
    if min(sizes) < 1:
        return Test(sum(sizes), np.nan, np.nan, np.nan, np.nan, "Cliff's delta", np.nan, note)
    estimate, low, high, _ = (float(value) for value in mean_difference(first, second))
    p = np.nan
    if min(sizes) >= MINIMUM_SAMPLES:
        (_, part_a, n_a), (_, part_b, n_b) = _moments(first), _moments(second)
        error, freedom = float(np.sqrt(part_a + part_b)), float(_freedom(part_a, n_a, part_b, n_b))
        p = float(2 * stdtr(freedom, -abs(estimate) / error)) if error else float(estimate == 0)
    ranks = midranks(np.concatenate([second, first]))[: sizes[1]]
    above = (ranks.sum() - sizes[1] * (sizes[1] + 1) / 2) / (sizes[0] * sizes[1])  # Mann and Whitney's U by its largest
    return Test(sum(sizes), estimate, low, high, float(2 * above - 1), "Cliff's delta", p, note)


def _moments(x: Floats) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Mean over the first axis, its squared standard error (NaN below two values), and the number of finite values."""
    mean, n = finite_mean(x, axis=0)
    squares = np.where(np.isfinite(x), x - mean, 0) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return mean, squares.sum(axis=0) / (n - 1) / n, n


def _freedom(part_a: Floats, n_a: NDArray[np.int64], part_b: Floats, n_b: NDArray[np.int64]) -> Floats:
    """Welch and Satterthwaite's degrees of freedom; one where nothing varies, which any number would suit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = (part_a + part_b) ** 2 / (part_a**2 / (n_a - 1) + part_b**2 / (n_b - 1))
    return np.asarray(np.where(part_a + part_b == 0, 1.0, found))


def independent_shares(a: ArrayLike, b: ArrayLike) -> Test:
    r"""Newcombe's comparison of two independent shares: that of b minus that of a, from two arrays of booleans.

    The interval is Newcombe's hybrid of Wilson's intervals (method 10, doi:10.1002/(SICI)1097-0258(19980430)17:8<873::
    AID-SIM779>3.0.CO;2-I). p is the smallest level 1 - coverage at which it still excludes 0, so p is below 0.05
    exactly where the 95 % interval excludes 0. The effect is Cohen's h, the difference of arcsines
    :math:`2 \arcsin \sqrt p`.

    Examples
    --------
    >>> test = independent_shares(np.arange(64) % 2 == 0, np.arange(100) % 4 != 1)
    >>> test.n, test.estimate, test.p < 0.05
    (164, 0.25, True)
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    sizes, note = (len(first), len(second)), _too_few(len(first), len(second))
    if min(sizes) < 1:
        return Test(sum(sizes), np.nan, np.nan, np.nan, np.nan, "Cohen's h", np.nan, note)
    hits, shares = (int(first.sum()), int(second.sum())), (float(first.mean()), float(second.mean()))
    low, high = _newcombe(hits, sizes, 0.95)
    effect = float(2 * (np.arcsin(shares[1] ** 0.5) - np.arcsin(shares[0] ** 0.5)))
    p = _p_of_newcombe(hits, sizes) if min(sizes) >= MINIMUM_SAMPLES else np.nan
    return Test(sum(sizes), shares[1] - shares[0], low, high, effect, "Cohen's h", p, note)


def _newcombe(hits: tuple[int, int], sizes: tuple[int, int], level: float) -> tuple[float, float]:
    """Bounds of the second share minus the first."""
    (share_a, share_b), (low, high) = np.divide(hits, sizes), wilson(hits, sizes, level)
    apart = share_b - share_a
    return (
        float(apart - np.hypot(share_b - low[1], high[0] - share_a)),
        float(apart + np.hypot(high[1] - share_b, share_a - low[0])),
    )


def _p_of_newcombe(hits: tuple[int, int], sizes: tuple[int, int]) -> float:
    """The level 1 - coverage at which the interval ends at 0."""
    from scipy.special import ndtr

    apart = hits[1] / sizes[1] - hits[0] / sizes[0]
    if apart == 0:
        return 1.0

    def end(z: float) -> float:
        low, high = _newcombe(hits, sizes, float(2 * ndtr(z) - 1))
        return low if apart > 0 else -high

    most = 8.0  # standard errors; beyond, coverage cannot be distinguished from 1
    if end(most) > 0:
        return float(2 * ndtr(-most))
    return float(2 * ndtr(-root(lambda z: -end(z), 0, most)))


def _too_few(a: int, b: int) -> str:
    few = f"insufficient samples: {a} and {b}, each needs {MINIMUM_SAMPLES}"
    return few if min(a, b) < MINIMUM_SAMPLES else ""
