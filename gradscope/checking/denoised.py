"""Causes around the denoiser: its Jacobian, x0-hat, and the predicted mean."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from gradscope.checking import variations
from gradscope.checking.case import Candidate, Case
from gradscope.checking.measure import Slopes
from gradscope.checking.scale import following
from gradscope.errors import GradscopeError
from gradscope.models.calls import output_of
from gradscope.sampling.process import Level


def detached(case: Case) -> Slopes:
    """The derivative with the denoiser's output held constant.

    Raises
    ------
    GradscopeError
        The energy does not call the denoiser.
    """
    assert case.denoiser is not None
    with torch.no_grad():
        outputs = widely(case, lambda: variations.captured(case.energy, case.denoiser, case.x, case.t))
    found = case.slopes(variations.replayed(case.energy, case.denoiser, outputs))
    return Slopes(torch.zeros_like(case.truth.value), torch.zeros_like(case.truth.error)) if found is None else found


def widely(case: Case, call: Any) -> Any:
    """Call a function with the modules in the type of ``case.x``."""
    if not case.measure.fine:
        return call()
    with case.measure.wide:
        return call()


def jacobian(case: Case) -> Iterator[Candidate]:
    """The denoiser's Jacobian is missing, or is there though it was declared missing."""
    if case.denoiser is None:
        return
    if case.declared.classifier_input == "x0_detached":
        full = case.slopes(case.energy)
        if full is not None:
            yield Candidate("jacobian_present", "", full)
        return
    yield Candidate("jacobian_missing", "", detached(case))


def at_x0(case: Case) -> Iterator[Candidate]:
    """The derivative with respect to x0-hat."""
    if case.denoiser is None or (found := level_of(case)) is None:
        return
    level, kind = found
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if kind == "epsilon" and level.signal == 0:
        return
    by_output = float(level.original(one, zero, kind) - level.original(zero, zero, kind))
    if by_output == 0:
        return
    energy = variations.displaced(case.energy, case.denoiser, case.x, 1 / by_output)
    slopes = case.slopes(energy)
    if slopes is None:  # the energy does not call the denoiser
        return
    yield Candidate("at_x0", "", slopes)
    if case.guide is not None and (x_0 := original(case)) is not None:
        bound = bound_of(case)
        slopes = case.slopes(variations.displaced_input(case.energy, case.guide, case.x, x_0.clamp(-bound, bound)))
        if slopes is not None:
            yield Candidate("at_x0", "after the clamp", slopes)


def points(case: Case) -> Iterator[Candidate]:
    """The energy's gradient at other points than x_t."""
    x = case.x
    yield from _at(case, "at_another_point", "(x + 1) / 2: another range", (x + 1) / 2)
    yield from _at(case, "at_another_point", "2 x - 1: another range", 2 * x - 1)
    yield from _at(case, "at_another_point", "x clamped to [-1, 1]", x.clamp(-1, 1))
    found = level_of(case)
    if found is None:
        return
    level, _ = found
    if level.signal > 0:
        yield from _at(case, "at_another_point", "x / sqrt(alphas_cumprod)", x / level.signal)
        yield from _at(case, "at_another_point", "sqrt(alphas_cumprod) x", x * level.signal)
    x_0 = original(case)
    if x_0 is None:
        return
    bound = bound_of(case)
    for name, prediction in dict.fromkeys((("x0-hat", x_0), ("x0-hat, clamped", x_0.clamp(-bound, bound)))):
        yield from _at(case, "at_another_point", f"{name}, as if it were x_t", prediction)
        epsilon = (x - level.signal * prediction) / level.noise if level.noise else torch.zeros_like(x)
        for before, after in _levels_after(case, level):
            of_kinds = {
                "DDPM": _mean(level, after, x, prediction),
                "DDIM": after.signal * prediction + after.noise * epsilon,
            }
            for kind, mean in of_kinds.items():
                words = f"{kind}'s mean at timestep {before:g}"
                yield from _at(case, "at_mean", words, mean)
                yield from _at(case, "at_mean", f"{words}, with that timestep", mean, case.timed(before))


def means(case: Case) -> Iterator[tuple[str, Tensor, float]]:
    """Predicted means of a DDPM's steps from here, each with its name and the standard deviation of its noise."""
    found, x_0 = level_of(case), original(case)
    if found is None or x_0 is None:
        return
    (level, _), bound = found, bound_of(case)
    for before, after in _levels_after(case, level):
        share, next_share = level.alphas_cumprod, after.alphas_cumprod
        sigma = ((1 - share / next_share) * (1 - next_share) / (1 - share)) ** 0.5
        for prediction in (x_0, x_0.clamp(-bound, bound)):
            yield f"the mean at timestep {before:g}", _mean(level, after, case.x, prediction), sigma


def _levels_after(case: Case, level: Level) -> Iterator[tuple[float, Level]]:
    """The timesteps that may follow, with their levels, which have less noise."""
    for before in following(case):
        assert case.process is not None
        after = case.process.level(before, None)
        if after is not None and level.alphas_cumprod < after.alphas_cumprod:
            yield before, after


def stale(case: Case) -> Iterator[Candidate]:
    """The gradient at the step before."""
    if case.previous is None:
        return
    x, t = case.previous
    x = x.detach().to(case.x)
    yield from _at(case, "stale_x", "x of the step before", x)
    yield from _at(case, "stale_x", "x and timestep of the step before", x, t)
    yield from _at(case, "wrong_timestep", "timestep of the step before", case.x, t)


def early_noise(case: Case) -> Iterator[Candidate]:
    """The gradient at the samples after the step, which have its noise."""
    for name, x, t in case.following:
        yield from _at(case, "noise_before_gradient", name, x.detach().to(case.x), t)


def _at(case: Case, verdict: str, cause: str, x: Tensor, t: Any = None) -> Iterator[Candidate]:
    slopes = case.slopes(case.energy, x, t)
    if slopes is not None:
        yield Candidate(verdict, cause, slopes)


def level_of(case: Case) -> tuple[Level, str] | None:
    """The noise level of the timestep, and what the denoiser predicts; None if they are not known."""
    process, t = case.process, case.timestep
    if process is None or t is None:
        return None
    level, kind = process.level(t, None), process.predicts or "epsilon"
    return None if level is None else (level, kind)


def original(case: Case) -> Tensor | None:
    """x0-hat at x_t, not clamped, from the denoiser."""
    found, denoiser = level_of(case), case.denoiser
    if denoiser is None or found is None or found[0].signal == 0:
        return None
    (level, kind), x, t = found, case.x, times_of(case)

    def call() -> Tensor:
        with torch.no_grad():
            return output_of(denoiser, x, t)

    try:
        output = widely(case, call)
    except GradscopeError:
        return None
    return level.original(output[:, : x.shape[1]], x, kind)


def times_of(case: Case) -> Tensor:
    """The timestep of each sample, ``(n,)``."""
    t = torch.as_tensor(case.t, device=case.x.device)
    return t.expand(case.n) if t.ndim == 0 else t


def bound_of(case: Case) -> float:
    """Bound of x0-hat: the scheduler's, else 1."""
    clip = None if case.process is None else case.process.clip_range
    return 1.0 if clip is None else float(clip)


def _mean(level: Level, after: Level, x: Tensor, x_0: Tensor) -> Tensor:
    """Mean of the posterior (equation 7 of arXiv 2006.11239)."""
    share, before = level.alphas_cumprod, after.alphas_cumprod
    beta = 1 - share / before
    return (before**0.5 * beta * x_0 + (share / before) ** 0.5 * (1 - before) * x) / (1 - share)
