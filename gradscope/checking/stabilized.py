"""The orders in which a declared stabiliser may have been applied instead."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gradscope.checking.case import Case, Fit
from gradscope.checking.measure import Slopes, unit


def orders(case: Case) -> str | None:
    """The order of operations that gives the direction of the claim in place of the declared one; None if none does."""
    if case.declared.stabilizer is None:
        return None
    claims = [unit(case.along(claim)) for claim in case.claims]
    relative = case.truth.error / case.truth.norm.where(case.truth.norm > 0, 1)[:, None]
    least = torch.zeros_like(case.tolerance)
    for cause, value in _directions(case):
        slopes = Slopes(unit(value), relative)
        if any(Fit.of(claim, slopes, case.tolerance, least).equal for claim in claims):
            return cause
    return None


def _directions(case: Case) -> Iterator[tuple[str, Tensor]]:
    gradient, declared, x = case.truth.value, case.declared, case.x_t
    yield "normalisation before the stabiliser", declared.update(unit(gradient), x, declared.state)
    yield "no stabiliser", gradient
    yield "the stabiliser's state is lost at every step", declared.update(gradient, x, None)
