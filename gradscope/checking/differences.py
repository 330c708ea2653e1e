"""Directional derivatives of a black box by central differences and Richardson's extrapolation, with error estimates.

With D(h) = (f(x + h u) - f(x - h u)) / 2h and a second step h / r, the value (r^2 D(h / r) - D(h)) / (r^2 - 1) is exact
to the fourth order. Its error is estimated by the spread of three successive ones and by the rounding of f. For each
sample those with the smallest estimate count, since kinks (ReLU, clamps) spoil long steps and rounding short ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor

_FINE = (4e-3, 4.0, 7)
"""Longest step, ratio of two steps, and largest number of steps in float64."""
_COARSE = (0.2, 2.0, 8)
"""The same in float32 and narrower types."""
_WINDOW = 3
"""Number of extrapolated values that must agree."""
_CANCELLED, _TERMS = 1e-3, 32.0
"""A smaller value may be a difference of terms of this size, and has their rounding: log p near 0 is one of logits."""
UNKNOWN = 1e100
"""The error of a derivative that could not be taken."""
_ENOUGH = 1e-6
"""Relative error at which no further step sizes are tried."""


def derivative(
    f: Callable[[Tensor], Tensor],
    x: Tensor,
    direction: Tensor,
    noise: Tensor,
    *,
    fine: bool,
    enough: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Derivative of f at x along a direction.

    Parameters
    ----------
    f
        From samples ``(n, *sample)`` to one number each, ``(n,)``.
    x, direction
        ``(n, *sample)``; directions have unit length.
    noise
        Standard deviation of the rounding of f, ``(n,)``.
    fine
        Whether f computes in float64.
    enough
        Error at which no further step sizes are tried, one number or ``(n,)``.

    Returns
    -------
    tuple
        The derivative and the estimate of its error, ``(n,)`` each, float64. The error is `UNKNOWN` where f is
        not finite.

    Examples
    --------
    >>> import torch
    >>> x = torch.tensor([[3.0]], dtype=torch.float64)
    >>> value, error = derivative(lambda x: x[:, 0] ** 3, x, torch.ones_like(x), torch.tensor([1e-15]), fine=True)
    >>> round(float(value), 6)
    27.0
    """
    longest, ratio, count = _FINE if fine else _COARSE
    best = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    least = torch.full_like(best, torch.inf)
    noise = noise.double()
    slopes: list[Tensor] = []
    values: list[Tensor] = []
    for k in range(count):
        h = longest / ratio**k
        difference = f(x + h * direction).detach().double() - f(x - h * direction).detach().double()
        slopes.append(difference / (2 * h))
        if k:
            values.append((ratio**2 * slopes[-1] - slopes[-2]) / (ratio**2 - 1))
        if len(values) < _WINDOW:
            continue
        window = torch.stack(values[-_WINDOW:])
        value = window.median(dim=0).values
        error = window.amax(dim=0) - window.amin(dim=0) + noise / h
        error = torch.where(value.isfinite(), error, torch.inf)
        better = error < least
        best, least = torch.where(better, value, best), torch.where(better, error, least)
        if bool((least <= torch.maximum(_ENOUGH * best.abs(), torch.as_tensor(enough))).all()):
            break
    return best, least.clamp(max=UNKNOWN)


def rounding(f: Callable[[Tensor], Tensor], x: Tensor, *, fine: bool, seed: int) -> Tensor:
    """Rounding of f at x: its largest change when x moves by its own last bits, ``(n,)``, float64."""
    generator = torch.Generator().manual_seed(seed)
    epsilon = torch.finfo(torch.float64 if fine else x.dtype).eps
    here = f(x).detach().double()
    terms = here.abs().where(here.abs() > _CANCELLED, _TERMS)
    found = epsilon * terms
    for _ in range(2):
        signs = torch.randint(0, 2, x.shape, generator=generator).to(x) * 2 - 1
        there = f(x + epsilon * x.abs().clamp(min=0.1) * signs).detach().double()
        found = torch.maximum(found, (there - here).abs())
    return found.nan_to_num(nan=UNKNOWN, posinf=UNKNOWN)
