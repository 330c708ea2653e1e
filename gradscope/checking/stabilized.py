"""What a declared stabiliser makes of a gradient, and the orders in which it may have been applied instead."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gradscope.checking.case import Case, Fit
from gradscope.checking.measure import Slopes, unit


def orders(case: Case) -> str | None:
    """The order of operations that gives the direction of the claim in place of the declared one; None if none does."""
    if case.declared.stabilizer is None or not case.basis.whole:
        return None
    claim = unit(case.values)
    for cause, value in _directions(case):
        error = case.truth.error / case.truth.norm.where(case.truth.norm > 0, 1)[:, None]
        if Fit.of(claim, Slopes(unit(value), error), case.tolerance, 0.0).equal:
            return cause
    return None


def _directions(case: Case) -> Iterator[tuple[str, Tensor]]:
    gradient = case.truth.value
    yield "normalisation before the stabiliser", _updated(case, unit(gradient), case.declared.state)
    yield "no stabiliser", gradient
    yield "the stabiliser's state is lost at every step", _updated(case, gradient, None)


def _updated(case: Case, gradient: Tensor, state: Any) -> Tensor:
    stabilizer = case.declared.stabilizer
    assert stabilizer is not None
    x = case.x_t
    update, _ = stabilizer.update(gradient.reshape(x.shape).to(x.dtype), stabilizer.init(x) if state is None else state)
    return update.flatten(1).double()


def stabilized(case: Case, slopes: Slopes) -> Slopes:
    """The declared update for a gradient, with its error: relatively that of the gradient's elements."""
    if case.declared.stabilizer is None:
        return slopes
    update = _updated(case, slopes.value, case.declared.state)
    relative = slopes.error / slopes.value.abs()
    return Slopes(update, update.abs() * torch.nan_to_num(relative, nan=0.0, posinf=2.0).clamp(max=2.0))
