"""What types of numbers do to a gradient: rounding, saturation, and underflow of float16."""

import torch
from torch import Tensor

from gradscope.checking.calls import HALF, claimed
from gradscope.checking.case import Case
from gradscope.checking.measure import gradient, norm
from gradscope.errors import GradscopeError

_LEAST = 1e-4
_DRAWS = 3
_MARGIN = 6
_SATURATED = 1e-2
"""Relative difference between the energy's gradients in two types from which on it is no usual rounding."""
_SUBNORMAL = 6e-8
"""Smallest number above 0 in float16."""


def rounding(case: Case) -> Tensor:
    """Relative rounding of the claim, ``(n,)``.

    It is measured by the change of the claim when x_t moves by its last bits, and by that of the energy's own gradient
    from float64 to the type of x_t.
    """
    generator = torch.Generator().manual_seed(case.measure.seed)
    epsilon = torch.finfo(case.x_t.dtype).eps
    size = norm(case.values)
    found = torch.zeros_like(size)
    for _ in range(0 if case.cond_fn is None else _DRAWS):
        signs = torch.randint(0, 2, case.x_t.shape, generator=generator).to(case.x_t) * 2 - 1
        assert case.cond_fn is not None
        moved = claimed(case.cond_fn, case.x_t + epsilon * case.x_t.abs().clamp(min=0.1) * signs, case.t)
        change = norm(case.along(moved - case.claim))
        found = torch.maximum(found, change / size.where(size > 0, 1))
    narrow = gradient(case.energy, case.x_t, case.t) if case.measure.fine and case.measure.by_autograd else None
    if narrow is not None:
        whole = case.slopes(case.energy)
        assert whole is not None
        change = norm(narrow.flatten(1) - whole.value) / whole.norm.where(whole.norm > 0, 1)
        found = torch.maximum(found, change.where(change < _SATURATED, 0))
    least = next((value for dtype, value in HALF.items() if _holds(case, dtype)), _LEAST)
    return least + _MARGIN * torch.maximum(found, found.median()).nan_to_num(nan=1.0).clamp(max=1.0)


def in_half(case: Case) -> bool:
    """Whether the claim holds float16 or bfloat16 numbers."""
    return any(_holds(case, dtype) for dtype in HALF)


def _holds(case: Case, dtype: torch.dtype) -> bool:
    """Whether every value of the claim is a number of a narrow type, from a computation in it.

    Small differences of float32 numbers near 1 are such numbers by chance.
    """
    claim = case.claim
    alike = bool(claim.any()) and bool((claim.to(dtype).to(claim.dtype) == claim).all())
    return alike and case.narrow


def underflows(case: Case) -> bool:
    """Whether the claim is the gradient as float16 holds it, with zeros below 6e-8."""
    if not case.basis.whole or not _holds(case, torch.float16):
        return False
    claim, truth = case.values, case.truth.value
    step = _SUBNORMAL / abs(case.declared.guidance_scale)
    alike = (claim - truth).abs() <= HALF[torch.float16] * truth.abs() + step + 3 * case.truth.error
    return bool(alike.all()) and bool(((claim == 0) & (truth.abs() > 3 * case.truth.error)).any())


def wide_claim(case: Case) -> Tensor | None:
    """What cond_fn gives in float64, ``(n, *sample)``; None if it does not take that, or was called so already."""
    if case.cond_fn is None or not case.measure.fine or case.x_t.dtype == case.x.dtype:
        return None
    try:
        with case.measure.wide:
            wide = claimed(case.cond_fn, case.x, case.t)
    except GradscopeError:
        return None
    return wide if bool(wide.isfinite().all()) else None


def lost(case: Case) -> Tensor:
    """Samples whose gradient the same code gives in float64, or autograd in the claim's own type, ``(n,)``."""
    scale = case.declared.guidance_scale
    found = torch.zeros(case.n, dtype=torch.bool, device=case.x_t.device)
    if case.wide_claim is not None:
        found |= case.fit(case.truth, case.along(case.wide_claim)).agrees
    narrow = gradient(case.energy, case.x_t, case.t)
    if narrow is not None and case.measure.by_autograd and case.declared.classifier_input != "x0_detached":
        difference = norm((narrow - case.claim.double() / scale).flatten(1))
        found |= difference <= 1e-6 * norm(narrow.flatten(1))
    return found
