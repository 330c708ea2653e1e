"""Causes around the guide: its target, its objective, and its input."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from gradscope.checking import variations
from gradscope.checking.case import Candidate, Case
from gradscope.checking.denoised import bound_of, level_of, original, times_of, widely
from gradscope.checking.measure import Slopes
from gradscope.errors import GradscopeError
from gradscope.models.calls import output_of

_MOST = 32
"""Largest number of classes that are all tried as targets."""


def logits(case: Case) -> Tensor | None:
    """The guide's logits at x_t as the energy sees them, ``(n, classes)``; None for another guide."""
    if case.guide is None:
        return None
    with torch.no_grad():
        found = widely(case, lambda: variations.captured(case.energy, case.guide, case.x, case.t))[-1]
    return found if found.ndim == 2 and len(found) == case.n and found.shape[1] > 1 else None


def target(case: Case, z: Tensor) -> Tensor | None:
    """The energy's target classes, ``(n,)``: given, or those whose log-probability or logit is the energy's value."""
    if case.labels is not None:
        outside = case.labels[(case.labels < 0) | (case.labels >= z.shape[1])]
        if len(outside):
            raise GradscopeError(f"labels: got {int(outside[0])}, and the guide has {z.shape[1]} classes")
        return case.labels
    value = case.measure.at(case.energy, case.x, case.t).to(z)[:, None]
    for table in (z.log_softmax(dim=1), z):
        distance, label = (table - value).abs().min(dim=1)
        if bool((distance <= 1e-4 * (1 + value[:, 0].abs())).all()):
            return label
    return None


def objectives(case: Case) -> Iterator[Candidate]:
    """Another function of the target's logits."""
    guide, z = case.guide, logits(case)
    label = None if z is None else target(case, z)
    if guide is None or label is None:
        return

    def pick(of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        return lambda out: of(out).gather(1, label[:, None])[:, 0]

    for verdict, cause, of in (
        ("logit", "", lambda out: out),
        ("probability", "", lambda out: out.softmax(dim=1)),
        ("logit", "log_softmax is applied twice over the batch", lambda out: out.log_softmax(dim=0)),
    ):
        slopes = case.slopes(variations.of_output(case.energy, guide, pick(of)))
        if slopes is not None:
            yield Candidate(verdict, cause, slopes)


def targets(case: Case) -> Iterator[Candidate]:
    """Other labels: usual mistakes first, then whichever class fits each sample."""
    z = logits(case)
    label = None if z is None else target(case, z)
    if z is None or label is None:
        return
    classes, raw = z.shape[1], _is_raw(case, z, label)
    usual = {
        "labels in reversed order": label.flip(0),
        "label + 1: off by one": (label + 1) % classes,
        "label - 1: off by one": (label - 1) % classes,
        "the null label, the last class": torch.full_like(label, classes - 1),
        "class 0": torch.zeros_like(label),
        "labels of the next sample": label.roll(-1),
        "labels of the sample before": label.roll(1),
        "the class that the guide predicts": z.argmax(dim=1),
    }
    for cause, other in usual.items():
        slopes = None if torch.equal(other, label) else _slopes(case, other, raw)
        if slopes is not None:
            yield Candidate("wrong_target", cause, slopes)
    if classes > _MOST:
        return
    known = [one for k in range(classes) if (one := _slopes(case, torch.full_like(label, k), raw)) is not None]
    if len(known) < classes:
        return
    fits = [case.fit(one) for one in known]
    best = torch.stack([fit.deviation for fit in fits]).argmin(dim=0)
    rows = torch.arange(case.n, device=best.device)
    value, error = (torch.stack([getattr(one, name) for one in known])[best, rows] for name in ("value", "error"))
    if not any(torch.equal(best, other) for other in (label, *usual.values())):
        yield Candidate("wrong_target", f"classes {_some(best)} in place of {_some(label)}", Slopes(value, error))
    mean = Slopes(torch.stack([one.value for one in known]).mean(dim=0), known[0].error)
    yield Candidate("wrong_target", "the mean over all classes", mean)


def _slopes(case: Case, label: Tensor, raw: bool) -> Slopes | None:
    """The derivative of the log-probability of other labels, or of their logits."""

    def of(out: Tensor) -> Tensor:
        return (out if raw else out.log_softmax(dim=1)).gather(1, label[:, None])[:, 0]

    assert case.guide is not None
    return case.slopes(variations.of_output(case.energy, case.guide, of))


def _is_raw(case: Case, z: Tensor, label: Tensor) -> bool:
    """Whether the energy is the target's logit or value itself, not its log-probability."""
    value = case.measure.at(case.energy, case.x, case.t).to(z)
    return bool(
        torch.isclose(z.gather(1, label[:, None])[:, 0], value, rtol=1e-4, atol=1e-6 * float(z.abs().max())).all()
    )


def inputs(case: Case) -> Iterator[Candidate]:
    """Another input of the guide: range, clamping, x_t in place of x0-hat."""
    if case.guide is None:
        return
    ranges: dict[str, Callable[[Tensor], Tensor]] = {
        "(x + 1) / 2: [0, 1] in place of [-1, 1]": lambda x: (x + 1) / 2,
        "2 x - 1: [-1, 1] in place of [0, 1]": lambda x: 2 * x - 1,
        "127.5 (x + 1): [0, 255] in place of [-1, 1]": lambda x: 127.5 * (x + 1),
        "255 x: [0, 255] in place of [0, 1]": lambda x: 255 * x,
        "x / 255": lambda x: x / 255,
        "-x": lambda x: -x,
    }
    for cause, change in ranges.items():
        yield from _with_input(case, "wrong_range", cause, _only(change))
    for low, high in ((-1.0, 1.0), (0.0, 1.0)):
        clamp = _only(partial(torch.clamp, min=low, max=high))
        yield from _with_input(case, "dead_by_clamping", f"the guide's input is clamped to [{low:g}, {high:g}]", clamp)
    yield from _with_input(case, "at_another_point", "the guide gets x_t", lambda given, x: x)
    level = None if case.process is None or case.timestep is None else case.process.level(case.timestep, None)
    if level is not None and level.signal > 0:
        signal = level.signal
        scaled = "the guide gets x_t / sqrt(alphas_cumprod)"
        yield from _with_input(case, "at_another_point", scaled, lambda given, x: x / signal)
    if case.denoiser is not None:
        yield from _of_x_0(case)


def _of_x_0(case: Case) -> Iterator[Candidate]:
    """The guide gets x0-hat, clamped or not, differentiated through the denoiser."""
    found, x_0 = level_of(case), original(case)
    if found is None or x_0 is None:
        return
    (level, kind), denoiser, t, bound = found, case.denoiser, times_of(case), bound_of(case)
    assert denoiser is not None
    seen = _input(case)
    is_clamped = seen.shape == x_0.shape and not torch.allclose(seen, x_0, atol=1e-4)
    is_clamped = is_clamped and torch.allclose(seen, x_0.clamp(seen.min(), seen.max()), atol=1e-4)

    def predicted(given: Tensor, x: Tensor) -> Tensor:
        return level.original(output_of(denoiser, x, t)[:, : x.shape[1]], x, kind)

    def clamp(given: Tensor, x: Tensor) -> Tensor:
        return predicted(given, x).clamp(-bound, bound)

    if is_clamped:
        yield from _with_input(case, "clamp_missing", "", predicted)
    else:
        yield from _with_input(case, "at_another_point", "the guide gets x0-hat", predicted)
        yield from _with_input(case, "at_another_point", "the guide gets x0-hat, clamped", clamp)


def _input(case: Case) -> Tensor:
    """What the guide gets from the energy."""
    seen: list[Tensor] = []

    def keep(given: Tensor, x: Tensor) -> Tensor:
        seen.append(given)
        return given

    assert case.guide is not None
    case.measure.at(variations.with_input(case.energy, case.guide, keep), case.x, case.t)
    return seen[-1]


def _with_input(
    case: Case, verdict: str, cause: str, change: Callable[[Tensor, Tensor], Tensor]
) -> Iterator[Candidate]:
    assert case.guide is not None
    slopes = case.slopes(variations.with_input(case.energy, case.guide, change))
    if slopes is not None:
        yield Candidate(verdict, cause, slopes)


def _only(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda given, x: change(given)


def _some(labels: Tensor) -> str:
    found = labels.tolist()
    return ", ".join(map(str, found[:6])) + (", ..." if len(found) > 6 else "")
