"""Where the code evaluates its modules: the samples that they get while cond_fn runs."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gradscope.checking import variations
from gradscope.checking.calls import claimed
from gradscope.checking.case import Candidate, Case
from gradscope.checking.checked import shown
from gradscope.checking.denoised import means

_MOST = 6
"""Largest number of samples that are tried."""
_NEAR = 0.4
"""Relative distance of a difference from the step's noise up to which it is taken for that."""


def points(case: Case) -> Iterator[Candidate]:
    """The energy's gradient at samples other than x_t that cond_fn gives its guide or denoiser."""
    if case.cond_fn is None:
        return
    for name, module in (("guide", case.guide), ("denoiser", case.denoiser)):
        for x in [] if module is None else _seen(case, module):
            slopes = case.slopes(case.energy, x)
            if slopes is not None:
                verdict, cause = _named(case, x, name)
                yield Candidate(verdict, cause, slopes)


def _seen(case: Case, module: nn.Module) -> list[Tensor]:
    """The module's inputs that have the shape of x_t and differ from it."""
    found: list[Tensor] = []

    def keep(x: Tensor) -> Tensor:
        known = [case.x_t, *found]
        if x.shape == case.x_t.shape and not any(torch.allclose(x, one) for one in known) and len(found) < _MOST:
            found.append(x.detach().clone())
        return x

    assert case.cond_fn is not None
    with variations.input_as(module, keep):
        claimed(case.cond_fn, case.x_t, case.t)
    return found


def _named(case: Case, x: Tensor, name: str) -> tuple[str, str]:
    """Verdict and cause of another point: the mean of a step with its noise, or a displacement."""
    x = x.to(case.x)
    for words, mean, sigma in means(case):
        size = float((x - mean).square().mean().sqrt())
        if sigma > 0 and abs(size / sigma - 1) < _NEAR:
            return "noise_before_gradient", f"the {name} gets {words} with noise of rms {shown(size)}"
    size = float((x - case.x).square().mean().sqrt())
    return "at_another_point", f"the {name} gets x_t displaced by rms {shown(size)}"
