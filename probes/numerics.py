"""Norms, cosines and unit vectors that hold for every float32 gradient.

Gradients of saturated classifiers reach below 1e-25, where float32 squares underflow: sums run in float64, whose range
covers every float32 square. Nothing is added to a denominator.
"""

import torch
from torch import Tensor


def norm(x: Tensor) -> Tensor:
    """Norm (l2) of each sample, shape ``(n,)``; NaN where an element is NaN."""
    return torch.linalg.vector_norm(x.flatten(1).double(), dim=1).to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """Each sample divided by its l2 norm; zero stays zero."""
    wide = x.double()
    length = torch.linalg.vector_norm(wide.flatten(1), dim=1)
    return (wide / torch.where(length == 0, 1, length).view(-1, *[1] * (x.ndim - 1))).to(x.dtype)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each sample of a with that of b, shape ``(n,)``; NaN where either is zero or not finite."""
    wide_a, wide_b = a.flatten(1).double(), b.flatten(1).double()
    lengths = torch.linalg.vector_norm(wide_a, dim=1) * torch.linalg.vector_norm(wide_b, dim=1)
    return ((wide_a * wide_b).sum(dim=1) / lengths).to(a.dtype)


def undefined(x: Tensor) -> Tensor:
    """NaN for each sample of x, shape ``(n,)``."""
    return torch.full(x.shape[:1], torch.nan, dtype=x.dtype, device=x.device)
