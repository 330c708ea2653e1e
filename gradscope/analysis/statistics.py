"""Statistics over trajectories, from NumPy arrays.

The unit is the trajectory, which is the sample. Timesteps of one trajectory depend on each other, so they never count
as separate observations. Every p comes with an effect size. With fewer than `MINIMUM_SAMPLES` samples there is no p.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gradscope.analysis.means import mean_interval
from gradscope.intervals import student, wilson

MINIMUM_SAMPLES = 64
"""Smallest number of samples for which a p is given."""

_CHUNK = 2**20  # elements of a matrix of signs, 8 MB

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Test:
    """A paired test of b against a."""

    n: int
    """Number of pairs."""
    estimate: float
    """Mean of b - a."""
    low: float
    """Lower bound of its 95 % interval."""
    high: float
    """Upper bound of its 95 % interval."""
    effect: float
    """Effect size, positive where b is larger."""
    effect_name: str
    """Name of the effect size."""
    p: float
    """Two-sided; NaN with fewer than `MINIMUM_SAMPLES` pairs."""
    note: str
    """Which values were left out, and why there is no p."""


@dataclass(frozen=True)
class Cluster:
    """Neighbouring timesteps at which paired curves differ."""

    first: int
    """Its first timestep."""
    last: int
    """Its last timestep."""
    mass: float
    """Sum of its t statistics, negative where the difference is negative."""
    p: float
    """p of its mass, corrected for the number of timesteps; NaN with too few samples."""
    estimate: float
    """Mean difference within it."""
    note: str = ""
    """Which values were left out, and why there is no p."""


def paired_mean(difference: ArrayLike) -> Test:
    """Student's test of the mean of paired differences b - a, shape ``(samples,)``.

    Estimate, interval and p come from one method, so p is below 0.05 exactly where the 95 % interval excludes 0. The
    effect is the matched-pairs rank-biserial correlation in [-1, 1]: the sum of ranks in favour of b minus the sum in
    favour of a, over the sum of all ranks. Zero differences have ranks (Pratt, doi:10.1080/01621459.1959.10501526) but
    favour neither (Kerby, doi:10.2466/11.IT.3.1).

    Examples
    --------
    >>> test = paired_mean(np.linspace(-1, 2, 64))
    >>> test.n, round(test.estimate, 2), test.p < 0.05
    (64, 0.5, True)
    """
    x, note = _finite(np.asarray(difference, dtype=np.float64))
    mean, low, high, _ = mean_interval(x)
    from scipy.special import stdtr  # a tenth of the time that scipy.stats takes to load

    effect = p = np.nan
    if len(x):
        ranks = midranks(np.abs(x))
        effect = float((np.sign(x) * ranks).sum() / ranks.sum())
    if len(x) >= MINIMUM_SAMPLES:
        half = float(high - low) / 2 / float(student(0.95, len(x) - 1))
        p = float(2 * stdtr(len(x) - 1, -abs(mean) / half)) if half > 0 else float(mean == 0)
    return Test(len(x), float(mean), float(low), float(high), effect, "rank-biserial correlation", p, note)


def mcnemar(a: ArrayLike, b: ArrayLike, level: float = 0.95) -> Test:
    r"""McNemar's test of paired verdicts, two booleans of shape ``(samples,)``, with the mid-p value.

    p is the two-sided mid-p of the discordant pairs' binomial (Fagerland et al., doi:10.1186/1471-2288-13-91).

    The estimate is the share of true verdicts in b minus that in a. It is the product of the share of discordant pairs,
    :math:`\psi`, and the balance of these in favour of b, :math:`\theta` in [-1, 1]. Its interval joins the limits of
    both by the squares of their distances (Zou & Donner, doi:10.1002/sim.3095): the limits of :math:`\theta` invert the
    same mid-p, those of :math:`\psi` are Wilson's. So p is below 0.05 exactly where the 95 % interval excludes 0.

    The effect is Cohen's g with a sign: the share of discordant pairs that favour b, minus one half; 0 if there are no
    discordant pairs.

    Examples
    --------
    >>> before, after = np.arange(64) % 2 == 0, np.arange(64) % 4 != 1
    >>> test = mcnemar(before, after)
    >>> test.estimate, test.effect, test.p < 0.05
    (0.25, 0.5, True)
    """
    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    n = len(first)
    gained, lost = int((~first & second).sum()), int((first & ~second).sum())
    discordant = gained + lost
    return Test(
        n=n,
        estimate=(gained - lost) / n if n else np.nan,
        low=_lower(gained, lost, n, level),
        high=-_lower(lost, gained, n, level),
        effect=gained / discordant - 0.5 if discordant else 0.0 if n else np.nan,
        effect_name="Cohen's g",
        p=min(1.0, 2 * _mid_p(max(gained, lost), discordant, 0.5)) if n >= MINIMUM_SAMPLES else np.nan,
        note=_insufficient(n),
    )


def holm(p: ArrayLike) -> Floats:
    """Holm's step-down adjusted p-values (Scand. J. Statist. 6, 65-70, 1979); NaN stays NaN and does not count.

    Examples
    --------
    >>> holm([0.01, 0.04, np.nan]).tolist()
    [0.02, 0.04, nan]
    """
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
    """Clusters of timesteps at which paired curves differ, tested by flipping the signs of whole samples.

    Neighbouring timesteps whose one-sample t passes the two-sided `level`, on the same side, form a cluster; its mass
    is the sum of their t. p compares this mass with the largest mass of either sign under random signs, one sign per
    sample (Maris & Oostenveld, doi:10.1016/j.jneumeth.2007.03.024). The data count as one permutation (Phipson & Smyth,
    doi:10.2202/1544-6115.1585). A small p shows that the curves differ; where the cluster begins is less certain.

    Parameters
    ----------
    difference
        b - a, shape ``(samples, timesteps)``. A value that is not finite is left out at its timestep. Timesteps with
        fewer than `MINIMUM_SAMPLES` finite samples, such as the first one of a cosine, are skipped: they neither belong
        to a cluster nor break one. If no timestep has enough samples, the clusters have no p.
    permutations
        Number of random sign vectors.
    seed
        Seed that draws them.
    level
        Two-sided level at which a timestep joins a cluster.

    Returns
    -------
    list of Cluster
        All clusters in order of time, whatever their p. `first` and `last` are indices of timesteps.

    Examples
    --------
    >>> difference = np.random.default_rng(0).normal(size=(80, 20))
    >>> difference[:, 5:9] += 1
    >>> [(found.first, found.last) for found in cluster_permutation(difference) if found.p < 0.01]
    [(5, 8)]
    """
    values = np.asarray(difference, dtype=np.float64)
    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    insufficient = bool(counts.max(initial=0) < MINIMUM_SAMPLES)
    columns = np.flatnonzero(counts >= (2 if insufficient else MINIMUM_SAMPLES))
    if not columns.size:
        return []
    x, counts = np.where(finite, values, 0)[:, columns], counts[columns]
    means = x.sum(axis=0) / counts
    peak = np.abs(x).max(axis=0)
    x /= np.where(peak == 0, 1, peak)  # t does not depend on the scale, but squares of tiny gradients underflow
    from scipy.special import stdtrit

    critical = stdtrit(counts - 1, 1 - level / 2)
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


def _finite(x: Floats) -> tuple[Floats, str]:
    kept = x[np.isfinite(x)]
    notes = [_insufficient(len(kept)), _left_out(len(x) - len(kept), len(x), "pairs")]
    return kept, "; ".join(filter(None, notes))


def _insufficient(n: int) -> str:
    return f"insufficient samples: {n} of {MINIMUM_SAMPLES}" if n < MINIMUM_SAMPLES else ""


def _left_out(count: int, total: int, what: str = "values") -> str:
    return f"{count} of {total} {what} not finite" if count else ""


def midranks(x: Floats) -> Floats:
    """Ranks of values from 1, ``(n,)``; equal values share the mean of their ranks.

    Examples
    --------
    >>> midranks(np.array([3.0, 1.0, 3.0]))
    array([2.5, 1. , 2.5])
    """
    _, places, counts = np.unique(x, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[places]


def root(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function changes its sign, to the last bit, by bisection.

    Examples
    --------
    >>> root(lambda x: x**2 - 2, 0, 2) == 2**0.5
    True
    """
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high


def _mid_p(k: int, n: int, share: float) -> float:
    """P(X > k) + P(X = k) / 2 for a binomial X of n draws."""
    from scipy.special import bdtrc

    return float(bdtrc(k, n, share) + bdtrc(k - 1, n, share)) / 2


def _lower(gained: int, lost: int, n: int, level: float) -> float:
    """Lower limit of (gained - lost) / n, see `mcnemar`."""
    if not n:
        return np.nan
    discordant, tail = gained + lost, (1 - level) / 2
    psi, (few, many) = discordant / n, (float(bound) for bound in wilson(discordant, n, level))
    if not discordant:
        return -many
    theta, least = (gained - lost) / discordant, -1.0
    if gained:
        least = 2 * root(lambda share: _mid_p(gained, discordant, share) - tail, 0, 1) - 1
    apart = theta * (psi - (few if theta > 0 else many))
    low = psi * theta - float(np.hypot(psi * (theta - least), apart))
    return max(low, least * few) if least > 0 else low


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
    """Split `rows` so that each part, as a matrix with `columns`, stays small."""
    step = max(1, _CHUNK // max(columns, 1))
    return (min(step, rows - first) for first in range(0, rows, step))
