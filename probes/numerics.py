"""Norms, cosines and unit vectors that hold for gradients of any scale, and a guide's margin.

Gradients of saturated guides reach below 1e-130, where squares and products of norms underflow. So everything runs in
float64, norms are those of x / max|x|, and cosines are those of unit vectors. No epsilon is added to a denominator.
"""

import torch
from torch import Tensor


def rows(x: Tensor) -> Tensor:
    """Samples as float64 rows, ``(n, elements)``."""
    return x.to(torch.float64, memory_format=torch.contiguous_format).flatten(1)


def norm_of_rows(x: Tensor) -> Tensor:
    """The l2 norm of each row, ``(n,)``; NaN if an element is NaN, infinite if one is infinite."""
    peak = torch.linalg.vector_norm(x, torch.inf, dim=1)
    scale = peak.where(peak.isfinite() & (peak > 0), 1)
    return scale * torch.linalg.vector_norm(x / scale[:, None], dim=1)


def norm(x: Tensor) -> Tensor:
    """The l2 norm of each sample, ``(n,)``, float64; see `norm_of_rows`."""
    return norm_of_rows(rows(x))


def unit_rows(x: Tensor, length: Tensor) -> Tensor:
    """Rows divided by their lengths; zero rows stay zero."""
    return x / length.where(length != 0, 1)[:, None]


def cosine_of_units(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each unit row of a with the same row of b, ``(n,)``, float32; NaN if either is zero or not finite."""
    known = a.any(dim=1) & b.any(dim=1)
    return (a * b).sum(dim=1).where(known, torch.nan).float()


def unit(x: Tensor) -> Tensor:
    """Each sample divided by its l2 norm; zero samples stay zero."""
    wide = rows(x)
    return unit_rows(wide, norm_of_rows(wide)).view(x.shape).to(x.dtype)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of each sample of a with the same one of b, ``(n,)``, float32; NaN if either is zero or not finite."""
    wide = rows(a), rows(b)
    return cosine_of_units(*(unit_rows(x, norm_of_rows(x)) for x in wide))


def margin(logits: Tensor, label: Tensor) -> Tensor:
    """The target's logit minus the logsumexp of the others, ``(n,)``, float64, so that log p = logsigmoid(margin).

    ``logits`` have shape ``(n, classes)``. Unlike log p, the margin does not round to 0 for a saturated guide.
    """
    wide, own = logits.double(), label[:, None]
    return wide.gather(1, own)[:, 0] - wide.scatter(1, own, -torch.inf).logsumexp(dim=1)


def undefined(x: Tensor) -> Tensor:
    """NaN for each sample of x, ``(n,)``, float32."""
    return torch.full(x.shape[:1], torch.nan, device=x.device)
