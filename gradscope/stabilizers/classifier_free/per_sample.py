"""Sums over the elements of each sample, in float64: its range covers the square of every float32 number."""

from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner products of the samples of two tensors of shape ``(n, ...)``, as ``(n, 1, ...)`` in float64."""
    return _spread((a.double() * b.double()).flatten(1).sum(1), a.ndim)


def std(a: Tensor) -> Tensor:
    """Standard deviation over the elements of each sample of ``(n, ...)``, as ``(n, 1, ...)`` in float64."""
    return _spread(a.double().flatten(1).std(1, correction=0), a.ndim)


def _spread(values: Tensor, ndim: int) -> Tensor:
    return values.view(-1, *[1] * (ndim - 1))
