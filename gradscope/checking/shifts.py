"""What a loop's steps do with the gradient: the direction and size of the shift, and the order of operations."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from gradscope.checking.measure import norm, unit
from gradscope.stabilizers import Stabilizer
from probes import GuidedStep

_ALONG = 0.99
"""Cosine of shift and direction from which on they agree, apart from rounding."""
_NEAR = 1e-2

Found = tuple[str, str, dict[str, Any]]


def turned(steps: Sequence[GuidedStep]) -> float:
    """-1 if the loop descends what it differentiates, so that the shift is against the gradient; else 1."""
    cosines = [_cosine(step.shift, step.gradient) for step in steps if step.shift is not None]
    known = torch.cat(cosines) if cosines else torch.zeros(0)
    known = known[known.isfinite()]
    return -1.0 if len(known) and float(known.median()) < -0.5 else 1.0


def shift_verdicts(
    steps: Sequence[GuidedStep],
    normalize: str,
    stabilizer: Stabilizer | None,
    factor: float | Callable[[float], float] | None,
    sign: float,
) -> Found | None:
    """The verdict on what the loop does with its gradient; None if that is as declared, or was not seen."""
    seen = [step for step in steps if step.shift is not None or step.update is not None]
    if not seen:
        return None
    orders = dict(_orders(steps, normalize, stabilizer, sign))
    scores = {name: _agreement(steps, directions) for name, directions in orders.items()}
    declared = scores["declared"]
    if declared is None:
        return None
    if declared < _ALONG:
        fitting = [name for name, score in scores.items() if score is not None and score >= _ALONG]
        evidence = {"shift_cosine": declared}
        if fitting:
            return "order", fitting[0], evidence | {"other_order_cosine": scores[fitting[0]]}
        return "shift_misdirected", "", evidence
    return _against(steps, orders["declared"]) or _size(steps, orders["declared"], normalize, factor)


def _orders(
    steps: Sequence[GuidedStep], normalize: str, stabilizer: Stabilizer | None, sign: float
) -> Iterator[tuple[str, list[Tensor]]]:
    """The directions of each step by the order of operations."""
    gradients = [sign * step.gradient for step in steps]
    units = [_unit(gradient) for gradient in gradients]
    if stabilizer is None:
        yield "declared", units if normalize == "l2" else gradients
        return
    after = _stabilized(stabilizer, gradients)
    yield "declared", [_unit(update) for update in after] if normalize == "l2" else after
    yield "normalisation before the stabiliser", _stabilized(stabilizer, units)
    yield "no stabiliser", gradients
    fresh = [_stabilized(stabilizer, [gradient])[0] for gradient in gradients]
    yield "the stabiliser's state is lost at every step", fresh
    yield "the stabiliser is applied twice", _stabilized(stabilizer, after)
    yield "the stabiliser descends: the sign is turned before it", [-update for update in after]


def _stabilized(stabilizer: Stabilizer, gradients: Sequence[Tensor]) -> list[Tensor]:
    state, updates = stabilizer.init(gradients[0]), []
    for gradient in gradients:
        update, state = stabilizer.update(gradient, state)
        updates.append(update)
    return updates


def _agreement(steps: Sequence[GuidedStep], directions: Sequence[Tensor]) -> float | None:
    """Lower quartile of the cosine between what steps did and a direction; None if rounding hides it everywhere."""
    cosines = [cosine for _, cosine in _cosines(steps, directions)]
    known = torch.cat(cosines) if cosines else torch.zeros(0)
    return float(known.quantile(0.25)) if len(known) else None


def _against(steps: Sequence[GuidedStep], directions: Sequence[Tensor]) -> Found | None:
    """The verdict on steps that go against a direction that the others follow."""
    turned = [(step.timestep, float(c.median())) for step, c in _cosines(steps, directions) if float(c.median()) < 0]
    if not turned:
        return None
    times = ", ".join(f"{t:g}" for t, _ in turned[:8])
    return "shift_misdirected", f"it is against them at timestep {times}", {"shift_cosine": min(c for _, c in turned)}


def _cosines(steps: Sequence[GuidedStep], directions: Sequence[Tensor]) -> Iterator[tuple[GuidedStep, Tensor]]:
    """Steps with the cosine of what they did with a direction, for the samples where rounding does not hide it."""
    for step, direction in zip(steps, directions, strict=True):
        done = step.shift if step.shift is not None else step.update
        if done is None:
            continue
        cosine = _cosine(done, direction)
        cosine = cosine[cosine.isfinite() & (_rounding(step) < 0.05)]
        if len(cosine):
            yield step, cosine


def _rounding(step: GuidedStep) -> Tensor:
    """Relative rounding of a shift, which is a difference of two samples, ``(n,)``; 0 for an update."""
    if step.shift is None or step.prev_sample is None:
        return torch.zeros(len(step.x_t), device=step.x_t.device)
    epsilon = torch.finfo(step.prev_sample.dtype).eps
    size = norm(step.shift.flatten(1).double())
    return epsilon * norm(step.prev_sample.flatten(1).double()) / size.where(size > 0, 1e-300)


def _size(
    steps: Sequence[GuidedStep],
    directions: Sequence[Tensor],
    normalize: str,
    factor: float | Callable[[float], float] | None,
) -> Found | None:
    """The verdict on the size of the shift: the same for all samples after normalisation, else as the direction's."""
    ratios, spreads, equal = [], [], []
    for step, direction in zip(steps, directions, strict=True):
        if step.shift is None:
            continue
        size = norm(step.shift.flatten(1).double())
        along = norm(direction.flatten(1).double())
        known = (size > 0) & (along > 0) & (_rounding(step) < 1e-3)
        if not bool(known.any()):
            continue
        ratio = size[known] / along[known]
        spreads.append(_spread(ratio))
        equal.append(_spread(size[known]))
        if factor is not None:
            wanted = abs(factor(step.timestep) if callable(factor) else factor)
            ratios.append(float(ratio.median()) / wanted if wanted else 1.0)
    if not spreads:
        return None
    varies = max(spreads) > 5 * _NEAR
    if normalize == "none" and varies and max(equal) < _NEAR:
        return "normalized", "every sample's shift has the same norm", {"ratio_spread": max(spreads)}
    if normalize == "l2" and varies and max(equal) > 5 * _NEAR:
        return "not_normalized", "", {"norm_spread": max(equal)}
    if ratios:
        middle = float(torch.tensor(ratios).median())
        if abs(middle - 1) > _NEAR:
            name = "doubled" if abs(middle - 2) < 2 * _NEAR else "scaled"
            return name, f"the shift is {middle:.4g} times the declared one", {"factor": middle}
    return None


def _spread(values: Tensor) -> float:
    """Largest over smallest, less one."""
    return float(values.max() / values.min()) - 1


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    a, b = unit(one.flatten(1)), unit(other.flatten(1))
    cosine = (a * b).sum(dim=1)
    return cosine.where(a.any(dim=1) & b.any(dim=1), torch.nan)


def _unit(vectors: Tensor) -> Tensor:
    return unit(vectors.flatten(1)).reshape(vectors.shape).to(vectors.dtype)
