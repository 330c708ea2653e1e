"""Classifier-free guidance, seen from outside: which of two predictions is conditional, and with which scale.

The loop gives the scheduler a guided prediction G. It is fitted, for each sample and in float64, by the parts of the
denoiser's outputs, G = a p + b q. Guidance is G = k (u + w (c - u)) (arXiv 2207.12598), where k is 1, or the factor of
rescaled guidance (arXiv 2305.08891). So a / (a + b) and b / (a + b) are w and 1 - w: for w above 1, the part with more
than 1 is the conditional one. Between 0 and 1 the order is undecidable, unless another step of the run showed it.
Guidance away from the condition, w < 0, looks like guidance towards the other one with 1 - w.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RESIDUAL = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.5e-2}
"""Largest relative residual of a fit, by the type of the denoiser's output."""
_MARGIN = {torch.float64: 1e-6, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 0.2}
"""How far a share may lie inside (0, 1) by rounding."""


class Undecidable(ValueError):
    """The predictions do not show how the loop guides."""


@dataclass(frozen=True)
class Guided:
    """The two predictions of one step and how they were combined."""

    conditional: Tensor
    """Prediction with the condition, ``(n, *sample)``, as the scheduler takes it."""
    unconditional: Tensor
    scale: Tensor
    """w in u + w (c - u) of each sample, ``(n,)``: 1 is no guidance."""
    order: int
    """Index of the conditional part."""


def parts_of(outputs: Sequence[Tensor], samples: int, shape: torch.Size) -> list[Tensor]:
    """The parts of the denoiser's outputs that have one row per sample, ``(n, *shape)``; learned variances are cut off.

    Raises
    ------
    Undecidable
        The outputs cannot be cut into such parts.
    """
    parts: list[Tensor] = []
    for output in outputs:
        if output.shape[1:] != shape and output.ndim == len(shape) + 1 and output.shape[1] == 2 * shape[0]:
            output = output[:, : shape[0]]
        if output.shape[1:] != shape or len(output) % samples:
            raise Undecidable(f"the denoiser gave {tuple(output.shape)}, the scheduler got {(samples, *shape)}")
        parts += output.split(samples)
    return parts


def guided_by(prediction: Tensor, parts: Sequence[Tensor], order: int | None = None) -> Guided | None:
    """How a prediction is guided; None if it is one of the parts, unchanged or negated, and there is no other.

    Parameters
    ----------
    prediction
        What the scheduler gets, ``(n, *sample)``.
    parts
        The denoiser's predictions for the same samples.
    order
        Index of the conditional one, if it is known.

    Raises
    ------
    Undecidable
        The fit fails, or the order cannot be decided.

    Examples
    --------
    >>> torch.manual_seed(0) and None
    >>> u, c = torch.randn(2, 1, 3, 8, 8).unbind()
    >>> guided = guided_by(u + 4 * (c - u), [u, c])
    >>> round(guided.scale.item(), 4), bool((guided.conditional == c).all())
    (4.0, True)
    """
    kind = parts[0].dtype if parts else prediction.dtype
    target = prediction.double().flatten(1)
    rows = [part.double().flatten(1) for part in parts]
    if len(rows) == 1:
        if any(_residual(target, sign * rows[0]) <= RESIDUAL.get(kind, 1e-5) for sign in (1, -1)):
            return None
        raise Undecidable("the scheduler got another prediction than the denoiser's one")
    if len(rows) != 2:
        raise Undecidable(f"the denoiser made {len(rows)} predictions a sample; classifier-free guidance has two")
    first, second = rows
    if torch.equal(first, second):
        raise Undecidable("the denoiser's two predictions are the same: the condition changes nothing")
    a, b = _coefficients(target, first, second)
    residual = _residual(target, a[:, None] * first + b[:, None] * second)
    if residual > RESIDUAL.get(kind, 1e-5):
        raise Undecidable(
            f"the scheduler's prediction is no sum of the denoiser's two: relative residual {residual:.1g}"
        )
    total = a + b
    if not bool(total.abs().min() > 0):
        raise Undecidable("the scheduler's prediction is zero")
    shares = (a / total).median().item(), (b / total).median().item()
    order = _order(shares, _MARGIN.get(kind, 1e-3)) if order is None else order
    sign = torch.sign(total.median()).to(parts[0])
    return Guided(
        sign * parts[order],
        sign * parts[1 - order],
        (b if order else a) / total,
        order,
    )


def _coefficients(target: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares of ``target = a first + b second`` for each row; a + b = +-1 where that fits as well."""
    change = second - first
    square = change.square().sum(dim=1)
    for sign in (1.0, -1.0):
        b = ((sign * target - first) * change).sum(dim=1) / square
        close = _residual(sign * target, first + b[:, None] * change)
        if close <= 1e-6:
            return sign * (1 - b), sign * b
    # In the basis of the sum and the change, which are far from parallel.
    mean = (first + second) / 2
    gram = torch.stack([mean.square().sum(1), (mean * change).sum(1), (mean * change).sum(1), square], dim=1).view(
        -1, 2, 2
    )
    right = torch.stack([(target * mean).sum(1), (target * change).sum(1)], dim=1)
    solved = torch.linalg.lstsq(gram, right[:, :, None]).solution[:, :, 0]
    return solved[:, 0] / 2 - solved[:, 1], solved[:, 0] / 2 + solved[:, 1]


def _order(shares: tuple[float, float], margin: float) -> int:
    """Index of the conditional part."""
    for i in (0, 1):
        if shares[i] > 1 + margin:
            return i
    raise Undecidable(
        f"the scheduler's prediction is one of the denoiser's two or lies between them (shares {shares[0]:.3g} and "
        f"{shares[1]:.3g}), so which one is conditional is not known"
    )


def _residual(target: Tensor, fit: Tensor) -> float:
    """Largest relative distance over the rows; infinite if it is not a number."""
    size = target.norm(dim=1)
    distance = ((target - fit).norm(dim=1) / size.where(size > 0, 1)).max().item()
    return distance if distance == distance else float("inf")


def halved(tensor: Tensor) -> Tensor | None:
    """The first half of a batch whose halves are equal; None for any other batch."""
    if len(tensor) < 2 or len(tensor) % 2:
        return None
    first, second = tensor.chunk(2)
    return first if torch.equal(first, second) else None
