"""Logistic rules of few features, and how well a score separates two groups."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit
from scipy.stats import rankdata

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Logistic:
    """Probability of an event, ``1 / (1 + exp(-(intercept + weights . x)))``, in the features' own units."""

    intercept: float
    weights: tuple[float, ...]

    def __call__(self, x: ArrayLike) -> Floats:
        """Probabilities ``(...)`` of features ``(..., features)``."""
        return expit(self.intercept + np.asarray(x, dtype=np.float64) @ np.array(self.weights))


def fit_logistic(x: ArrayLike, events: ArrayLike, penalty: float = 1.0) -> Logistic:
    """Fit by maximum likelihood with half the squared weights of standardised features as a penalty (ridge).

    Without the penalty the weights of features that separate the events would grow without limit.

    Parameters
    ----------
    x
        ``(n, features)``.
    events
        Whether each happened, ``(n,)``.
    penalty
        Factor of the penalty; the intercept has none.

    Examples
    --------
    >>> rule = fit_logistic([[0.0], [1.0], [2.0], [3.0]], [False, False, True, True])
    >>> rule([[0.0], [1.5], [3.0]]).round(2).tolist()
    [0.22, 0.5, 0.78]
    """
    values, happened = np.asarray(x, dtype=np.float64), np.asarray(events, dtype=bool)
    middle, spread = values.mean(axis=0), values.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    z = np.column_stack([np.ones(len(values)), (values - middle) / spread])
    side = np.where(happened, 1.0, -1.0)
    ridge = np.concatenate([[0.0], np.full(values.shape[1], penalty)])

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = side * (z @ w)
        slope = -(side * expit(-margin)) @ z + ridge * w
        return float(-log_expit(margin).sum() + 0.5 * (ridge * w**2).sum()), slope

    fitted = minimize(loss, np.zeros(z.shape[1]), jac=True, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 1e-15})
    weights = fitted.x[1:] / spread
    return Logistic(float(fitted.x[0] - weights @ middle), tuple(map(float, weights)))


def auc(scores: ArrayLike, events: ArrayLike) -> float:
    """Area under the ROC curve: how often an event scores higher than another case; ties count half.

    NaN without events, or without other cases.

    Examples
    --------
    >>> auc([0.1, 0.4, 0.35, 0.8], [False, False, True, True])
    0.75
    """
    ranks, happened = rankdata(scores), np.asarray(events, dtype=bool)
    n, others = int(happened.sum()), int((~happened).sum())
    if not n or not others:
        return float("nan")
    return float((ranks[happened].sum() - n * (n + 1) / 2) / (n * others))


def leave_one_out(x: Floats, events: NDArray[np.bool_], groups: ArrayLike) -> Floats:
    """Probability of each case by a rule that is fitted without the case's group, ``(n,)``.

    A group whose removal leaves events alone, or none, gets the share of events of the others.
    """
    out = np.empty(len(x))
    for rows in _groups(groups):
        others = events[~rows]
        mixed = others.any() and not others.all()
        out[rows] = fit_logistic(x[~rows], others)(x[rows]) if mixed else others.mean()
    return out


def chosen(x: Floats, events: NDArray[np.bool_], groups: ArrayLike, most: int = 3) -> list[int]:
    """Columns of `x` by forward selection, at most `most`.

    Each lowers by a tenth the log loss when one group at a time is left out. None is added once the scores so found
    separate the events from the other cases.
    """
    picked: list[int] = []
    scores = np.full(len(events), events.mean())
    while len(picked) < most and auc(scores, events) < 1:
        tried = {k: leave_one_out(x[:, [*picked, k]], events, groups) for k in range(x.shape[1]) if k not in picked}
        k = min(tried, key=lambda k: _log_loss(tried[k], events))
        if _log_loss(tried[k], events) > 0.9 * _log_loss(scores, events):
            break
        picked, scores = [*picked, k], tried[k]
    return picked


def grouped_interval(
    scores: Floats, events: NDArray[np.bool_], groups: Sequence[ArrayLike], replicates: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap interval (95 %) of the AUC: `groups` are drawn with replacement, level by level.

    Parameters
    ----------
    scores, events
        ``(n,)``.
    groups
        Names of each case's groups, the outermost level first, for example ``[kinds, guides]``.

    Returns
    -------
    tuple[float, float]
        The 2.5 and 97.5 % quantiles over replicates that have both groups of cases.
    """
    rng = np.random.default_rng(seed)
    drawn = [list(_drawn(np.arange(len(scores)), groups, rng)) for _ in range(replicates)]
    values = np.array([auc(scores[rows], events[rows]) for rows in drawn])
    low, high = np.nanquantile(values, [0.025, 0.975])
    return float(low), float(high)


def _drawn(rows: NDArray[np.int64], groups: Sequence[ArrayLike], rng: np.random.Generator) -> Iterator[int]:
    if not groups:
        yield from rows.tolist()
        return
    names = np.asarray(groups[0])[rows]
    there = list(dict.fromkeys(names.tolist()))
    for k in rng.integers(len(there), size=len(there)):
        yield from _drawn(rows[names == there[k]], groups[1:], rng)


def _groups(groups: ArrayLike) -> Iterator[NDArray[np.bool_]]:
    names = np.asarray(groups)
    for name in dict.fromkeys(names.tolist()):
        yield names == name


def _log_loss(p: Floats, events: NDArray[np.bool_]) -> float:
    return float(-np.log(np.clip(np.where(events, p, 1 - p), 1e-12, 1)).mean())
