"""Distances between a fixed set of real images and sets of samples, in features; with bootstrap replicates."""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import poly_kernel

Array = NDArray[np.float64]
_ROWS = 256
"""Rows of a kernel matrix that are computed at a time."""


class Frechet:
    r"""Frechet distance of samples to real images (FID with Inception's features; arXiv 1706.08500).

    .. math:: |\mu_r - \mu_s|^2 + tr(\Sigma_r + \Sigma_s - 2 (\Sigma_r \Sigma_s)^{1/2})

    The distance is computed by torchmetrics; replicates use
    :math:`tr (\Sigma_r \Sigma_s)^{1/2} = tr (\Sigma_r^{1/2} \Sigma_s \Sigma_r^{1/2})^{1/2}`, which is a hundred times
    faster because the matrix is symmetric.

    Parameters
    ----------
    real
        Features of the real images, ``(m, d)``.
    """

    def __init__(self, real: Array) -> None:
        self._enough = len(real) >= 2
        if not self._enough:
            return
        self._metric = FrechetInceptionDistance(feature=_AsGiven(real.shape[1]), reset_real_features=False)
        self._metric.update(torch.from_numpy(real), real=True)
        covariance = np.atleast_2d(np.cov(real, rowvar=False))
        values, vectors = np.linalg.eigh(covariance)
        self._mean, self._trace = real.mean(axis=0), np.trace(covariance)
        self._root = (vectors * np.sqrt(values.clip(0))) @ vectors.T

    def distance(self, samples: Array) -> float:
        """Distance of samples, ``(n, d)``; NaN with fewer than two images on either side."""
        if not self._enough or len(samples) < 2:
            return np.nan
        self._metric.update(torch.from_numpy(samples), real=False)
        distance = float(self._metric.compute())
        self._metric.reset()
        return distance

    def replicates(self, samples: Array, counts: NDArray[np.int64]) -> Array:
        """Distances with sample j repeated ``counts[b, j]`` times, ``(replicates,)``."""
        return np.array([self._weighted(samples[row > 0], row[row > 0]) for row in counts])

    def _weighted(self, samples: Array, count: NDArray[np.int64]) -> float:
        n = count.sum()
        if not self._enough or n < 2:
            return np.nan
        mean = count @ samples / n
        centred = (samples - mean) * np.sqrt(count / (n - 1))[:, None]
        if len(samples) < samples.shape[1]:
            half = centred @ self._root
            product = half @ half.T  # the same eigenvalues, except zeros
        else:
            product = self._root @ (centred.T @ centred) @ self._root
        cross = np.sqrt(np.linalg.eigvalsh(product).clip(0)).sum()
        return float(((mean - self._mean) ** 2).sum() + self._trace + (centred**2).sum() - 2 * cross)


class _AsGiven(nn.Module):
    """Identity, so that torchmetrics takes features in place of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


class Kernel:
    r"""Kernel distance of samples to real images (KID with Inception's features; arXiv 1801.01401).

    The unbiased squared maximum mean discrepancy for :math:`k(x, y) = (x \cdot y / d + 1)^3` over all pairs: the mean
    of k over pairs of distinct real images, plus the mean over pairs of distinct samples, minus twice the mean over
    pairs of a real image and a sample. torchmetrics averages over random subsets of equal size instead.

    Parameters
    ----------
    real
        Features of the real images, ``(m, d)``.
    """

    def __init__(self, real: Array) -> None:
        self._real = real
        self._enough = len(real) >= 2
        if self._enough:
            total = sum(float(k.sum() - np.trace(k, offset=first)) for first, k in _kernel(real, real))
            self._within = total / (len(real) * (len(real) - 1))

    def distance(self, samples: Array) -> float:
        """Distance of samples, ``(n, d)``; NaN with fewer than two images on either side."""
        return float(self.replicates(samples, np.ones((1, len(samples)), dtype=np.int64))[0])

    def replicates(self, samples: Array, counts: NDArray[np.int64]) -> Array:
        """Distances with sample j repeated ``counts[b, j]`` times, ``(replicates,)``."""
        n = counts.sum(axis=1).astype(np.float64)
        n[n < 2] = np.nan
        if not self._enough:
            return np.full(len(counts), np.nan)
        within, across = np.zeros(len(counts)), np.zeros(len(counts))
        for first, k in _kernel(samples, samples):
            rows = counts[:, first : first + len(k)]
            within += np.einsum("br,br->b", rows, counts @ k.T) - rows @ np.diagonal(k, offset=first)
        for first, k in _kernel(samples, self._real):
            across += counts[:, first : first + len(k)] @ k.mean(axis=1)
        return self._within + within / (n * (n - 1)) - 2 * across / n


def _kernel(a: Array, b: Array) -> Iterator[tuple[int, Array]]:
    """Blocks of rows of the kernel matrix of a and b, each with the index of its first row."""
    for first in range(0, len(a), _ROWS):
        yield first, poly_kernel(torch.from_numpy(a[first : first + _ROWS]), torch.from_numpy(b)).numpy()
