"""Scores of vectors against the exact gradient, at one timestep or at many, with 95 % intervals over samples.

With e_i for the exact gradient of log p_t(y | x_t) at sample i of n, and g_ri for the vector of replicate r of R at it:

- cosine: the mean over replicates and samples of cos(g_ri, e_i). A vector that is 0 or not finite has no direction; its
  cosine counts as 0.
- norm ratio: ``sqrt(sum |g_ri|^2 / sum |e_i|^2)``, the root mean square norm relative to the exact gradient's.
- bias and variance are those of ``c g``, where c is the factor of least squares over all replicates and samples of the
  timestep, ``sum <g_ri, e_i> / sum |g_ri|^2``: a factor is the guidance scale's, not the method's. Relative to the
  exact gradient's mean square, with the mean m_i and the trace s_i of the covariance (divisor R - 1) of replicates::

    bias^2 = mean_i(|c m_i - e_i|^2 - c^2 s_i / R) / mean_i |e_i|^2,   variance = mean_i(c^2 s_i) / mean_i |e_i|^2

  The term s_i / R removes what the variance adds to |c m_i - e_i|^2. A bias^2 that comes out below 0 counts as 0.
  Without a second replicate there is no variance, and the bias includes it.

Means have Student's interval over samples; ratios of means have that of their linearisation.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from gradscope.intervals import student

Floats = NDArray[np.float64]
Score = tuple[Floats, Floats, Floats]
"""Estimate, and lower and upper end of its interval, each ``(timesteps,)``."""


class Moments(NamedTuple):
    """What the scores need of vectors, ``(timesteps, replicates, n)`` each."""

    cosine: Floats
    """NaN where the vector has no direction."""
    square: Floats
    """|g|^2."""
    exact_square: Floats
    """|e|^2."""


class AtOnePlace(NamedTuple):
    """What bias and variance need besides, of replicates at the same x_t."""

    product: Floats
    """<g, e>, ``(timesteps, replicates, n)``."""
    mean_square: Floats
    """Square of the mean over replicates, ``(timesteps, n)``."""


def mean_score(values: Floats) -> Score:
    """Mean over samples, the last dimension, with Student's interval."""
    n = values.shape[-1]
    peak = np.abs(values).max(axis=-1, keepdims=True)
    scaled = values / np.where(peak > 0, peak, 1)  # squares of ratios to a gradient that dies overflow
    half = student(0.95, n - 1) * scaled.std(axis=-1, ddof=1) / n**0.5 if n > 1 else np.nan
    mean, half = scaled.mean(axis=-1) * peak[..., 0], half * peak[..., 0]
    return mean, mean - half, mean + half


def ratio_score(above: Floats, below: Floats) -> Score:
    """Ratio of the means over samples, the last dimension, with the interval of its linearisation.

    Examples
    --------
    >>> [round(float(x), 3) for x in ratio_score(np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))]
    [1.0, -0.242, 2.242]
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = above.mean(axis=-1) / below.mean(axis=-1)
        _, low, high = mean_score((above - ratio[..., None] * below) / below.mean(axis=-1, keepdims=True))
    return ratio, ratio + low, ratio + high


def root(score: Score) -> Score:
    """The square root of a score, which counts as 0 below 0."""
    value, low, high = (np.sqrt(np.maximum(part, 0)) for part in score)
    return value, low, high


def along_t(moments: Moments) -> dict[str, Score]:
    """``cosine`` and ``norm_ratio`` of each timestep."""
    return {
        "cosine": mean_score(by_sample(moments.cosine)),
        "norm_ratio": root(ratio_score(moments.square.mean(axis=1), moments.exact_square.mean(axis=1))),
    }


def by_sample(cosine: Floats) -> Floats:
    """Mean cosine over replicates, ``(timesteps, n)``; an undefined one counts as 0."""
    return np.nan_to_num(cosine, nan=0.0).mean(axis=1)


def errors(moments: Moments, place: AtOnePlace) -> dict[str, Score]:
    """``bias`` and ``variance`` of each timestep; see the module.

    Examples
    --------
    >>> one = np.ones((1, 2, 4))  # vectors equal to the exact gradient, of norm 1
    >>> found = errors(Moments(one, one, one), AtOnePlace(one, one[:, 0]))
    >>> float(found["bias"][0][0]), float(found["variance"][0][0])
    (0.0, 0.0)
    """
    replicates = moments.square.shape[1]
    exact = moments.exact_square.mean(axis=1)
    square = moments.square.sum(axis=(1, 2))
    c = np.divide(place.product.sum(axis=(1, 2)), square, out=np.zeros_like(square), where=square > 0)[:, None]
    off = c**2 * place.mean_square - 2 * c * place.product.mean(axis=1) + exact
    if replicates == 1:
        none = np.full(len(off), np.nan)
        return {"bias": root(ratio_score(off, exact)), "variance": (none, none, none)}
    spread = c**2 * (moments.square.sum(axis=1) - replicates * place.mean_square).clip(min=0) / (replicates - 1)
    return {
        "bias": root(ratio_score(off - spread / replicates, exact)),
        "variance": ratio_score(spread, exact),
    }
