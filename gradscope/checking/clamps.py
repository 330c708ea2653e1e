"""A clamp of x0-hat after guidance: what is left of the push."""

from collections.abc import Iterator

import torch

from gradscope.checking.case import Candidate, Case
from gradscope.checking.denoised import bound_of, original
from gradscope.checking.measure import Slopes


def clamped_twice(case: Case) -> Iterator[Candidate]:
    """The shift of the next sample, divided by its weight, when x0-hat + k g is clamped once more.

    The size k of the push is unknown. An element that reaches the bound b shows it: c = (b - x0-hat) / k.
    """
    x_0 = original(case)
    if x_0 is None or not case.basis.whole:
        return
    bound, g, c = bound_of(case), case.truth.value, case.values
    for words, before in (("", x_0.clamp(-bound, bound)), (", which was not clamped before", x_0)):
        start = before.flatten(1).double()
        room = g.sign() * bound - start
        cut = (c != 0) & (g != 0) & ((c - g).abs() > 1e-3 * g.abs())
        push = (room / c)[cut]
        push = push[push.isfinite() & (push > 0)]
        k = float(push.median()) if len(push) else 1e-6 * bound / float(g.abs().max().clamp(min=1e-300))
        value = ((start + k * g).clamp(-bound, bound) - start) / k
        error = case.truth.error + torch.finfo(case.x_t.dtype).eps * bound / k
        yield Candidate("clamped_twice", f"x0-hat is clamped to [{-bound:g}, {bound:g}] after guidance{words}",
                        Slopes(value, error), {"push": k})  # fmt: skip
