"""All that the tests of one check share: the claim, the reference, and what the user gave."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.checking.calls import Energy, computes_in_half
from gradscope.checking.measure import Basis, Measure, Slopes, norm, unit
from gradscope.errors import GradscopeError
from gradscope.stabilizers import Stabilizer
from gradscope.watching.process import Process

_MOST = 0.9
"""Share of the samples that a candidate must explain, where kinks may spoil finite differences."""
_KINKS_FINE, _KINKS = 0.05, 0.4
"""Largest deviation of the other samples, in float64 and in narrower types: three times what was seen for ReLU."""
SURE = 0.3
"""Largest relative error at which a sample says anything."""


@dataclass(frozen=True)
class Declared:
    """What the loop says that it does to the gradient."""

    classifier_input: str | None = None
    normalize: str = "none"
    guidance_scale: float = 1.0
    stabilizer: Stabilizer | None = None
    state: Any = None
    """What the stabiliser holds before this step; None: what it holds before the first one."""

    def update(self, gradient: Tensor, x: Tensor, state: Any) -> Tensor:
        """The stabiliser's update for a gradient, ``(n, elements)`` both, float64."""
        assert self.stabilizer is not None
        state = self.stabilizer.init(x) if state is None else state
        update, _ = self.stabilizer.update(gradient.reshape(x.shape).to(x.dtype), state)
        return update.flatten(1).double()


@dataclass
class Case:
    """One batch, its claimed gradient and its reference."""

    cond_fn: Energy | None
    """None where only what it gave is known."""
    energy: Energy
    x_t: Tensor
    t: Any
    claim: Tensor
    """What cond_fn gave, ``(n, *sample)``."""
    declared: Declared
    measure: Measure
    denoiser: nn.Module | None = None
    guide: nn.Module | None = None
    labels: Tensor | None = None
    process: Process | None = None
    previous: tuple[Tensor, Any] | None = None
    following: list[tuple[str, Tensor, Any]] = field(default_factory=list)
    """Points after the step, each with its name and timestep, where a loop showed them."""
    tolerance: Tensor = field(init=False)
    """Relative rounding of the claim, ``(n,)``; more only where `judge` measured more."""
    basis: Basis = field(default=Basis(None))
    truth: Slopes = field(init=False)
    wide_claim: Tensor | None = None
    """What cond_fn gave in float64, if it takes that."""
    untested: dict[str, str] = field(default_factory=dict)
    """Causes whose test failed, with the reason."""

    def __post_init__(self) -> None:
        self.tolerance = torch.full((self.n,), 2e-5, dtype=torch.float64, device=self.x_t.device)

    @property
    def x(self) -> Tensor:
        """x_t in the type in which energies are evaluated."""
        return self.measure.x

    @property
    def n(self) -> int:
        """Number of samples."""
        return len(self.x_t)

    @property
    def timestep(self) -> float | None:
        """The timestep, if it is one number, the same for all samples."""
        if not isinstance(self.t, Tensor | int | float | np.number):
            return None
        found = torch.as_tensor(self.t).detach().double().reshape(-1)
        return float(found[0]) if bool((found == found[0]).all()) else None

    @cached_property
    def narrow(self) -> bool:
        """Whether cond_fn computes in float16 or bfloat16, or may: where only its values are known."""
        return self.cond_fn is None or computes_in_half(self.cond_fn, self.x_t, self.t)

    @property
    def values(self) -> Tensor:
        """The claim along the basis, ``(n, directions)``, in units of the gradient."""
        return self.along(self.claim)

    @property
    def claims(self) -> list[Tensor]:
        """The claim, ``(n, *sample)``, and what the same code gives in float64, if it is known.

        A cause may explain the second alone: a faint gradient is lost in rounding, whatever the fault.
        """
        return [self.claim] if self.wide_claim is None else [self.claim, self.wide_claim]

    def along(self, claim: Tensor) -> Tensor:
        """A claim, ``(n, *sample)``, along the basis, ``(n, directions)``, in units of the gradient."""
        return self.basis.project(claim) / self.declared.guidance_scale

    @property
    def least(self) -> float:
        """Norm below which gradients underflow in the type of x_t."""
        return torch.finfo(self.x_t.dtype).tiny * self.x_t[0].numel() ** 0.5

    def slopes(self, energy: Energy, x: Tensor | None = None, t: Any = None) -> Slopes | None:
        """Derivatives of another energy, or at another point; None if they cannot be taken."""
        at, time = self.x if x is None else self.measure.widened(x), self.t if t is None else t
        try:
            return self.measure.slopes(energy, at, time, self.basis)
        except GradscopeError:  # for example a timestep beyond the energy's table
            return None

    def fit(self, slopes: Slopes, values: Tensor | None = None) -> "Fit":
        """How well slopes explain the claim."""
        values, least = self.values if values is None else values, torch.full_like(self.tolerance, self.least)
        slopes = self.stabilized(slopes)
        if self.declared.normalize == "l2":
            size = torch.maximum(slopes.norm, 3 * slopes.noise)
            size = size.where(size > 0, 1)
            slopes, least = Slopes(slopes.value / size[:, None], slopes.error / size[:, None]), least / size
            values = unit(values)
        found = Fit.of(values, slopes, self.tolerance, least)
        if self.measure.by_autograd:
            return found
        return replace(found, share=_MOST, excused=_KINKS_FINE if self.measure.fine else _KINKS)

    def stabilized(self, slopes: Slopes) -> Slopes:
        """The declared update for a gradient. Its error is relatively that of the gradient's elements."""
        if self.declared.stabilizer is None:
            return slopes
        update = self.declared.update(slopes.value, self.x_t, self.declared.state)
        relative = slopes.error / slopes.value.abs()
        return Slopes(update, update.abs() * torch.nan_to_num(relative, nan=0.0, posinf=2.0).clamp(max=2.0))

    def fits(self, slopes: Slopes) -> "Fit":
        """The fit of the claim; that of the claim in float64 if only that one is explained."""
        found = self.fit(slopes)
        if found.equal or self.wide_claim is None:
            return found
        wide = self.fit(slopes, self.along(self.wide_claim))
        return wide if wide.equal or (wide.parallel and not found.parallel) else found

    def timed(self, t: float) -> Any:
        """A timestep in the form in which the user gave it."""
        if isinstance(self.t, Tensor):
            return torch.full_like(self.t, t)
        return type(self.t)(t)


@dataclass(frozen=True)
class Fit:
    """A claim c against a candidate s, per sample."""

    deviation: Tensor
    """``|c - s| / max(|c|, |s|)``, ``(n,)``; 0 where both are zero."""
    allowed: Tensor
    """The deviation that rounding explains, ``(n,)``."""
    cosine: Tensor
    """NaN where one is zero."""
    ratio: Tensor
    """``<c, s> / <s, s>``, NaN where s is zero."""
    spread: Tensor
    """``|c - ratio s| / |c|``: the deviation with a free factor."""
    share: float = 1.0
    """Share of the samples that must agree."""
    excused: float = 0.0
    """Largest deviation of the other samples."""

    @classmethod
    def of(cls, claim: Tensor, slopes: Slopes, tolerance: Tensor, least: Tensor) -> "Fit":
        """Compare them, ``(n, directions)``, up to a relative tolerance, and to the least norm of the claim's type."""
        ours, theirs, noise = norm(torch.stack([claim, slopes.value, slopes.error]))
        larger = torch.maximum(ours, theirs)
        scale = larger.where(larger > 0, 1)
        c, s = claim / scale[:, None], slopes.value / scale[:, None]
        allowed = tolerance + torch.where(larger > 0, (3 * noise + least) / scale, 0.0)
        dot, square = (c * s).sum(dim=1), s.square().sum(dim=1)
        ratio = torch.where(square > 0, dot / square.where(square > 0, 1), torch.nan)
        length = ours / scale
        deviation, apart = norm(torch.stack([c - s, c - torch.nan_to_num(ratio)[:, None] * s]))
        cosine = dot / (length * square.sqrt())
        spread = apart / length.where(length > 0, 1)
        return cls(deviation, allowed, cosine, ratio, spread)

    def without(self, samples: Tensor) -> "Fit":
        """The same, where these samples, ``(n,)``, say nothing."""
        return replace(self, allowed=self.allowed.where(~samples, torch.inf))

    @property
    def informative(self) -> Tensor:
        """Samples whose reference is known well enough to say anything, ``(n,)``."""
        return self.allowed < SURE

    @property
    def agrees(self) -> Tensor:
        """Samples that the candidate explains within rounding, ``(n,)``."""
        return self.deviation <= self.allowed

    @property
    def equal(self) -> bool:
        """Whether the candidate explains every informative sample, of which there is one."""
        known = self.informative
        return bool(known.any()) and self._most(self.agrees[known]) and self.near

    @property
    def near(self) -> bool:
        """Whether every informative sample agrees, or deviates no more than kinks may explain."""
        return bool((self.agrees | (self.deviation <= self.excused))[self.informative].all())

    @property
    def parallel(self) -> bool:
        """Whether a factor a sample makes them equal in every informative sample that is not zero."""
        known = self.informative & self.cosine.isfinite()
        return bool(known.any()) and self._most(self.spread[known] <= 2 * self.allowed[known])

    def _most(self, which: Tensor) -> bool:
        return float(which.double().mean()) >= self.share

    @property
    def factor(self) -> float | None:
        """The factor of all samples; None if there is not one."""
        known = self.informative & self.cosine.isfinite()
        if not self.parallel:
            return None
        ratios = self.ratio[known]
        middle = float(ratios.median())
        slack = 3 * self.allowed[known] * abs(middle)
        return middle if self._most((ratios - middle).abs() <= slack) else None

    @property
    def worst(self) -> float:
        """Largest deviation of an informative sample."""
        known = self.deviation[self.informative]
        return float(known.max()) if len(known) else float("nan")


@dataclass(frozen=True)
class Candidate:
    """What the claim would be if a cause held."""

    verdict: str
    cause: str
    slopes: Slopes
    evidence: Mapping[str, Any] = field(default_factory=dict)


Hypothesis = Callable[[Case], Iterator[Candidate]]
