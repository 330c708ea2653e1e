"""Norms, cosines and unit vectors that hold for every float32 gradient.

Gradients of saturated classifiers reach below 1e-25, where float32 squares underflow: sums run in float64, whose range
covers every float32 square. Nothing is added to a denominator.
"""

import torch
from torch import Tensor


def rows(x: Tensor) -> Tensor:
    """Samples as float64 rows, ``(n, elements)``."""
    return x.to(torch.float64, memory_format=torch.contiguous_format).flatten(1)


def norm(x: Tensor) -> Tensor:
    """Norm (l2) of each sample, shape ``(n,)``; NaN where an element is NaN."""
    return torch.linalg.vector_norm(rows(x), dim=1).to(x.dtype)


def unit_rows(x: Tensor, length: Tensor) -> Tensor:
    """Rows divided by their lengths; zero stays zero."""
    return x / length.where(length != 0, 1)[:, None]


def cosine_of_rows(a: Tensor, b: Tensor, lengths: Tensor) -> Tensor:
    """Cosine of each row of a with that of b, where `lengths` are the products of their norms; NaN where that is 0."""
    return ((a * b).sum(dim=1) / lengths).float()


def unit(x: Tensor) -> Tensor:
    """Each sample divided by its l2 norm; zero stays zero."""
    wide = rows(x)
    return unit_rows(wide, torch.linalg.vector_norm(wide, dim=1)).view(x.shape).to(x.dtype)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each sample of a with that of b, shape ``(n,)``; NaN where either is zero or not finite."""
    wide_a, wide_b = rows(a), rows(b)
    lengths = torch.linalg.vector_norm(wide_a, dim=1) * torch.linalg.vector_norm(wide_b, dim=1)
    return cosine_of_rows(wide_a, wide_b, lengths)


def undefined(x: Tensor) -> Tensor:
    """NaN for each sample of x, shape ``(n,)``."""
    return torch.full(x.shape[:1], torch.nan, dtype=x.dtype, device=x.device)
