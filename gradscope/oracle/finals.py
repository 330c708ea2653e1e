"""Scores of final samples against the true p(x | y): accuracy, KL divergence, and coverage of components.

- accuracy: the share of samples that the exact Bayes classifier of clean samples gives to their target.
- KL: the divergence of the samples' law q(x | y) from p(x | y), in nats, by nearest neighbours (doi:
  10.1109/TIT.2009.2016060, with the exact density in place of the second sample)::

    KL = mean_i[-log p(x_i | y_i) - log(n_y - 1) - log V - dim log r_i + digamma(k)],  k = 3

  with r_i the distance to the k-th nearest sample of the same target, in `dim` dimensions with a unit ball of volume V.
  It is that of the samples' projections onto the plane through the class's two components and the mean of all classes.
  In the plane that is the whole of x. Elsewhere it bounds the KL of x from below (data processing), since no estimate
  from samples holds in 64 dimensions. The projected density is exact.
- coverage: ``sum_j min(share_j, expected share_j)`` over all components j of all classes, where share_j is the share of
  samples whose nearest component is j and whose target is j's class. 1 if the samples have the true shares.

Exact draws have a Bayes accuracy below 1, a KL that is not 0 and a coverage below 1, too: `floor` measures them.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from torch import Tensor

from gradscope.intervals import bootstrap, resampled
from gradscope.oracle.mixtures import Wide
from gradscope.oracle.scores import mean_score

NEIGHBOUR = 3
"""k of the KL; each target needs more samples than that."""
_RESAMPLES = 200


class Finals(NamedTuple):
    """Scores of one set of final samples."""

    right: NDArray[np.bool_]
    """Whether the Bayes classifier sees the target, ``(n,)``."""
    divergence: NDArray[np.float64]
    """Each sample's term of the KL, ``(n,)``; NaN where a target has too few samples."""
    component: NDArray[np.int64]
    """The nearest component, ``(n,)``."""


def finals(mixture: Wide, samples: Tensor, label: Tensor) -> Finals:
    """Score final samples.

    Parameters
    ----------
    mixture
        The data.
    samples
        ``(n, *sample)``.
    label
        Their targets, ``(n,)``, int64.
    """
    right = (mixture.logits(samples, 1.0).argmax(dim=1) == label).numpy()
    return Finals(right, _divergence(mixture, samples, label), mixture.nearest(samples).numpy())


def coverage(component: NDArray[np.int64], label: NDArray[np.int64], each: int) -> tuple[float, float, float]:
    """Coverage of components, the mean over replicates, with its bootstrap interval over samples.

    Parameters
    ----------
    component
        The samples' nearest components, ``(replicates, n)``; those of class k begin at ``k * each``.
    label
        The samples' targets, ``(n,)``.
    each
        Components of each class.

    Examples
    --------
    >>> coverage(np.array([[0, 0, 2, 3]]), np.array([0, 0, 1, 1]), each=2)[0]
    0.75
    """
    n = len(label)
    wanted = np.repeat(np.eye(label.max() + 1)[label], each, axis=1) / each
    hits = np.eye(wanted.shape[1])[component] * (component // each == label)[..., None]

    def of(weights: NDArray) -> NDArray:
        return np.minimum(weights @ hits, weights @ wanted).sum(axis=-1).mean(axis=0) / n

    estimate = float(of(np.ones((1, n)))[0])
    return estimate, *bootstrap(estimate, of(resampled(n, _RESAMPLES)))


class Floor(NamedTuple):
    """Scores of exact draws, as many as there are samples: mean, 2.5 and 97.5 % quantiles over sets."""

    accuracy: tuple[float, float, float]
    kl: tuple[float, float, float]
    coverage: tuple[float, float, float]


def floor(mixture: Wide, label: Tensor, seed: int, sets: int = 40) -> Floor:
    """Scores of exact draws for the same targets."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(sets):
        found = finals(mixture, mixture.draw(label, generator), label)
        covered = coverage(found.component[None], label.numpy(), mixture.each)[0]
        rows.append((found.right.mean(), found.divergence.mean(), covered))
    values = np.array(rows)
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    return Floor(*((float(m), float(a), float(b)) for m, a, b in zip(values.mean(axis=0), low, high, strict=True)))


def _divergence(mixture: Wide, samples: Tensor, label: Tensor) -> NDArray[np.float64]:
    means = mixture.means.flatten(1)
    x = samples.double().flatten(1)
    out = np.full(len(x), np.nan)
    for k in range(mixture.classes):
        rows = (label == k).nonzero()[:, 0]
        if len(rows) <= NEIGHBOUR:
            continue
        own = means[k * mixture.each : (k + 1) * mixture.each]
        axes = torch.linalg.qr(torch.stack([own[1] - own[0], own.mean(dim=0) - means.mean(dim=0)], dim=1)).Q
        centres, points = own @ axes, x[rows] @ axes
        dim = axes.shape[1]
        log_p = torch.logsumexp(-(torch.cdist(points, centres) ** 2) / (2 * mixture.std**2), dim=1) - np.log(len(own))
        log_p = log_p - dim / 2 * np.log(2 * np.pi * mixture.std**2)
        distance = torch.cdist(points, points).sort(dim=1).values[:, NEIGHBOUR].clamp(min=1e-300).log()
        volume = dim / 2 * np.log(np.pi) - gammaln(dim / 2 + 1)
        constant = digamma(NEIGHBOUR) - np.log(len(rows) - 1) - volume
        out[rows.numpy()] = (constant - dim * distance - log_p).numpy()
    return out


def kl_score(divergence: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean of the samples' terms, with Student's interval over samples, which takes them as independent."""
    value, low, high = mean_score(divergence)
    return float(value), float(low), float(high)
