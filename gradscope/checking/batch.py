"""Faults between the samples of a batch, and gradients that are drawn."""

import torch
from torch import Tensor

from gradscope.checking.calls import claimed
from gradscope.checking.case import Case
from gradscope.checking.measure import norm
from gradscope.errors import GradscopeError

_RANDOM = 1e-3
_MIXED = 1e-2


def is_random(case: Case) -> float | None:
    """Largest relative change of the gradient between two calls, if that is no rounding."""
    if case.cond_fn is None:
        return None
    again = claimed(case.cond_fn, case.x_t, case.t)
    change = _change(case.claim, again)
    worst = float(change.max())
    return worst if worst > _RANDOM else None


def mixed(case: Case) -> str:
    """How the gradient of a sample depends on others; empty if it does not.

    Raises
    ------
    GradscopeError
        The energy of a sample depends on others.
    """
    if case.n < 2 or case.cond_fn is None:
        return ""
    generator = torch.Generator().manual_seed(case.measure.seed + 1)
    moved = torch.zeros(case.n, device=case.x_t.device)
    energies = torch.zeros(case.n, device=case.x_t.device)
    here = case.measure.at(case.energy, case.x, case.t).double()
    for parity in (0, 1):
        rows = torch.arange(case.n, device=case.x_t.device) % 2 == parity
        other = case.x_t.clone()
        noise = torch.randn(other.shape, generator=generator).to(other)
        other[rows] = other[rows] * 0.5 + noise[rows]
        change = _change(case.claim, claimed(case.cond_fn, other, case.t))
        moved[~rows] = change[~rows].to(moved)
        there = case.measure.at(case.energy, case.measure.widened(other), case.t).double()
        energies[~rows] = ((there - here).abs() / (1e-6 + here.abs()))[~rows].to(energies)
    if float(energies.max()) > _MIXED:
        raise GradscopeError(
            "energy: the value of a sample changes with the other samples of the batch; give a function of each sample"
        )
    worst = float(moved.max())
    return f"it changes by {worst:.3g} of its norm when other samples change" if worst > _MIXED else ""


def permuted(case: Case) -> str | None:
    """The order of rows that explains the claim, in words; None if there is none."""
    if case.n < 2:
        return None
    orders = {
        "reversed": torch.arange(case.n).flip(0),
        "rolled by one": torch.arange(case.n).roll(1),
        "rolled by minus one": torch.arange(case.n).roll(-1),
        "halves exchanged": torch.arange(case.n).roll(case.n // 2),
    }
    if case.basis.whole:
        distance = torch.cdist(case.values, case.truth.value)
        orders["other rows"] = distance.argmin(dim=0).cpu()
    for claim in case.claims:
        for name, order in orders.items():
            if case.fit(case.truth, case.along(claim[order.to(claim.device)])).equal:
                return name
    return None


def _change(one: Tensor, other: Tensor) -> Tensor:
    """Relative distance of each sample's gradients, ``(n,)``."""
    a, b = one.flatten(1).double(), other.flatten(1).double()
    size = torch.maximum(norm(a), norm(b))
    return (norm(a - b) / size.where(size > 0, 1)).nan_to_num(nan=1.0)
