"""Statistics over trajectories, NumPy in and NumPy out.

The unit is the trajectory, that is the sample: timesteps of one trajectory depend on each other and are never counted
as if they were observations of their own. Beside every p stands an effect size, and below `MINIMUM` samples there is
no p.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradscope.intervals import resampled, wilson

MINIMUM = 64
"""Samples below which no p is given."""

_CHUNK = 2**20  # elements of a matrix of signs or weights: 8 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Test:
    """A paired test of b against a."""

    n: int
    """Pairs that entered."""
    estimate: float
    """Mean of b - a,"""
    low: float
    high: float
    """and its 95 % interval."""
    effect: float
    """Effect size, positive where b is larger,"""
    effect_name: str
    """and what it is."""
    p: float
    """Two-sided; NaN below `MINIMUM` pairs."""
    note: str
    """What was left out, and why there is no p."""


@dataclass(frozen=True)
class Cluster:
    """Neighbouring timesteps at which paired curves differ."""

    first: int
    last: int
    """Both belong to it."""
    mass: float
    """Sum of its t statistics, negative where the difference is."""
    p: float
    """Of its mass, corrected for the number of timesteps; NaN where the samples do not suffice."""
    estimate: float
    """Mean difference within it."""
    note: str = ""


class Mean(NamedTuple):
    """Means with their interval, each without the axis of the samples."""

    mean: Floats
    low: Floats
    high: Floats
    n: NDArray[np.int64]
    """Finite samples."""


def wilcoxon(difference: ArrayLike) -> Test:
    """Wilcoxon's signed-rank test of paired differences b - a, shape ``(samples,)``.

    The estimate is the mean difference with its bootstrap interval. The effect is the matched-pairs rank-biserial
    correlation in [-1, 1]: ranks in favour of b minus those in favour of a, over all ranks; zero differences are ranked
    (Pratt, doi:10.1080/01621459.1959.10501526) and favour neither (Kerby, doi:10.2466/11.IT.3.1). The test is of
    symmetry around zero: for skewed differences it and the mean's interval may disagree.
    """
    x, note = _finite(np.asarray(difference, dtype=np.float64))
    mean, low, high, _ = bootstrap_mean(x)
    from scipy import stats  # takes a second: only where it is needed

    effect = p = np.nan
    if len(x):
        ranks = stats.rankdata(np.abs(x))
        effect = float((np.sign(x) * ranks).sum() / ranks.sum())
    if len(x) >= MINIMUM:
        p = float(stats.wilcoxon(x, zero_method="pratt", method="asymptotic").pvalue) if x.any() else 1.0
    return Test(len(x), float(mean), float(low), float(high), effect, "rank-biserial correlation", p, note)


def mcnemar(a: ArrayLike, b: ArrayLike) -> Test:
    """McNemar's exact test of paired verdicts, two booleans of shape ``(samples,)``.

    p is the two-sided binomial of the discordant pairs. The estimate is the share of true in b minus that in a, with
    Newcombe's hybrid score interval for paired shares (Stat. Med. 17, 2635-2650, 1998, method 10). The effect is
    Cohen's g with a sign: the share of discordant pairs that favour b, less a half; 0 where there are none.
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    n = len(first)
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    low, high = _newcombe(int((first & second).sum()), gained, lost, n)
    discordant = gained + lost
    p = np.nan
    if n >= MINIMUM:
        from scipy import stats

        p = float(stats.binomtest(gained, discordant).pvalue) if discordant else 1.0
    return Test(
        n=n,
        estimate=(gained - lost) / n if n else np.nan,
        low=low,
        high=high,
        effect=gained / discordant - 0.5 if discordant else 0.0 if n else np.nan,
        effect_name="Cohen's g",
        p=p,
        note=_insufficient(n),
    )


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values (Scand. J. Statist. 6, 65-70, 1979); NaN stays NaN and does not count."""
    raw = np.asarray(p, dtype=np.float64)
    adjusted = np.full(raw.shape, np.nan)
    known = np.flatnonzero(np.isfinite(raw))
    order = known[np.argsort(raw[known])]
    remaining = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(raw[order] * remaining))
    return adjusted


def cluster_permutation(
    difference: ArrayLike, permutations: int = 2000, seed: int = 0, level: float = 0.05
) -> list[Cluster]:
    """Where paired curves differ: clusters of timesteps, tested by flipping the signs of whole samples.

    Neighbouring timesteps whose one-sample t passes the two-sided `level`, on the same side, form a cluster; its mass
    is the sum of their t. p compares it with the largest mass of either sign under random signs, one a sample (Maris &
    Oostenveld, doi:10.1016/j.jneumeth.2007.03.024), and counts the data as one permutation (Phipson & Smyth,
    doi:10.2202/1544-6115.1585). What p vouches for is that the curves differ, less so where the cluster begins.

    Parameters
    ----------
    difference
        b - a, shape ``(samples, timesteps)``. A value that is not finite is left out at its timestep. Timesteps with
        fewer than `MINIMUM` finite samples (such as the first one of a cosine) are skipped: they neither belong to a
        cluster nor break one. Where no timestep has enough, there are clusters, without p.
    permutations, seed
        Number of random sign vectors, and the seed that draws them.

    Returns
    -------
    list of Cluster
        All clusters, in order of time, by index of the timestep, whatever their p.
    """
    values = np.asarray(difference, dtype=np.float64)
    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    insufficient = bool(counts.max(initial=0) < MINIMUM)
    columns = np.flatnonzero(counts >= (2 if insufficient else MINIMUM))
    if not columns.size:
        return []
    x, counts = np.where(finite, values, 0)[:, columns], counts[columns]
    means = x.sum(axis=0) / counts
    peak = np.abs(x).max(axis=0)
    x /= np.where(peak == 0, 1, peak)  # t has no scale, but squares of tiny gradients have no room
    from scipy import stats

    critical = stats.t.ppf(1 - level / 2, counts - 1)
    squares = (x**2).sum(axis=0)

    def t(sums: NDArray) -> Floats:
        variance = np.maximum(squares - sums**2 / counts, 1e-12 * squares) / (counts - 1)
        return np.asarray(sums / np.sqrt(np.where(squares == 0, 1, variance * counts)))

    observed = t(x.sum(axis=0))
    found = [(run, float(observed[run].sum())) for run in _runs(np.sign(observed) * (np.abs(observed) > critical))]
    largest = np.empty(0)
    if found and not insufficient:
        rng = np.random.default_rng(seed)
        largest = np.concatenate(
            [
                _largest_mass(t((2.0 * rng.integers(0, 2, (size, len(x)), dtype=np.int8) - 1) @ x), critical)
                for size in _sizes(permutations, len(x))
            ]
        )
    note = _insufficient(int(counts.max())) if insufficient else _left_out(int((counts.max() - counts).sum()), x.size)
    return [
        Cluster(
            first=int(columns[run.start]),
            last=int(columns[run.stop - 1]),
            mass=mass,
            p=np.nan if insufficient else float((1 + (largest >= abs(mass)).sum()) / (permutations + 1)),
            estimate=float(means[run].mean()),
            note=note,
        )
        for run, mass in found
    ]


def bootstrap_mean(
    values: ArrayLike, axis: int = 0, level: float = 0.95, replicates: int = 1000, seed: int = 0
) -> Mean:
    """Mean over samples with its percentile bootstrap interval (Efron & Tibshirani 1993, chapter 13).

    Samples are drawn whole, the same for every timestep. A value that is not finite does not count at its timestep;
    there is no interval below two finite ones.

    Parameters
    ----------
    values
        Any shape, with the samples along `axis`.
    """
    x = np.moveaxis(np.asarray(values, dtype=np.float64), axis, 0)
    shape, n = x.shape[1:], len(x)
    x = x.reshape(n, prod(shape))
    finite = np.isfinite(x)
    counts = finite.sum(axis=0)
    x = np.where(finite, x, 0)
    mean = _divide(x.sum(axis=0), counts)
    bounds = np.full((2, x.shape[1]), np.nan)
    enough = counts >= 2
    if enough.any():
        x, finite = x[:, enough], finite[:, enough].astype(np.float64)
        whole = bool(finite.all())
        drawn = (resampled(n, size, seed + i).astype(np.float64) for i, size in enumerate(_sizes(replicates, n)))
        means = np.concatenate([_divide(times @ x, n if whole else times @ finite) for times in drawn])
        # Where few samples are finite, a replicate may hold none of them.
        quantile = np.nanquantile if np.isnan(means).any() else np.quantile
        bounds[:, enough] = quantile(means, ((1 - level) / 2, (1 + level) / 2), axis=0)
    low, high = bounds
    return Mean(mean.reshape(shape), low.reshape(shape), high.reshape(shape), counts.reshape(shape))


def _finite(x: Floats) -> tuple[Floats, str]:
    kept = x[np.isfinite(x)]
    notes = [_insufficient(len(kept)), _left_out(len(x) - len(kept), len(x), "pairs")]
    return kept, "; ".join(filter(None, notes))


def _insufficient(n: int) -> str:
    return f"insufficient samples: {n} of {MINIMUM}" if n < MINIMUM else ""


def _left_out(count: int, total: int, what: str = "values") -> str:
    return f"{count} of {total} {what} not finite" if count else ""


def _newcombe(both: int, gained: int, lost: int, n: int) -> tuple[float, float]:
    """Interval of the difference of two paired shares, (both + gained) / n minus (both + lost) / n."""
    if n == 0:
        return np.nan, np.nan
    neither = n - both - gained - lost
    hits = np.array([both + gained, both + lost])
    low, high = wilson(hits, n)
    p = hits / n
    below, above = p - low, high - p
    covariance = float(both * neither - gained * lost)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    margins = float(np.prod(hits * (n - hits), dtype=np.float64))
    phi = covariance / margins**0.5 if margins else 0.0
    difference = float(p[0] - p[1])
    down = below[0] ** 2 - 2 * phi * below[0] * above[1] + above[1] ** 2
    up = above[0] ** 2 - 2 * phi * above[0] * below[1] + below[1] ** 2
    return difference - float(down) ** 0.5, difference + float(up) ** 0.5


def _runs(side: NDArray) -> Iterator[slice]:
    """Runs of equal, non-zero signs."""
    edges = np.flatnonzero(np.diff(side)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(side)]])
    return (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True) if side[a])


def _largest_mass(t: Floats, critical: Floats) -> Floats:
    """The largest absolute cluster mass in each row of t, ``(permutations, timesteps)``."""
    largest = np.zeros(len(t))
    for sided in (t, -t):
        mass = np.zeros(len(t))
        for column, threshold in zip(sided.T, critical, strict=True):
            mass = np.where(column > threshold, mass + column, 0)
            np.maximum(largest, mass, out=largest)
    return largest


def _sizes(rows: int, columns: int) -> Iterator[int]:
    """Cut `rows` so that a matrix of so many columns stays small."""
    step = max(1, _CHUNK // max(columns, 1))
    return (min(step, rows - first) for first in range(0, rows, step))


def _divide(a: Floats, b: ArrayLike) -> Floats:
    """Quotient, NaN where b is 0."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(a / np.asarray(b, dtype=np.float64))
