"""Causes around the timestep: another one for all, or for one module alone."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.checking import variations
from gradscope.checking.calls import Energy
from gradscope.checking.case import Candidate, Case
from gradscope.errors import GradscopeError

_MOST = 64
"""Largest number of the loop's timesteps that are tried."""


def other_timesteps(case: Case) -> list[tuple[str, float]]:
    """Timesteps that may have been taken, with what they are."""
    now = case.timestep
    if now is None:
        return []
    found = [("t - 1: off by one", now - 1), ("t + 1: off by one", now + 1)]
    process = case.process
    times = None if process is None else process.times()
    total = None if process is None else process.num_train_timesteps
    if times is not None:
        known = [float(t) for t in times]
        if now in known:
            i = known.index(now)
            if i + 1 < len(known):
                found.append(("the next timestep of the loop", known[i + 1]))
            if i:
                found.append(("the timestep of the step before", known[i - 1]))
            found.append(("the index of the step", float(i)))
            found.append(("the index of the step, counted from the end", float(len(known) - 1 - i)))
            found.append(("the timestep in reversed order", known[-1 - i]))
        if len(known) <= _MOST:
            found.extend((f"timestep {t:g}", t) for t in known)
    if total is not None:
        found.append(("T - 1 - t: reversed", total - 1 - now))
        found.append(("T - t: reversed", total - now))
        found.append(("T - 1: fixed", total - 1.0))
        found.append(("t / T", now / total))
    found.append(("0: fixed", 0.0))
    seen: dict[float, list[str]] = {}
    for words, t in found:
        if t != now and t >= 0 and (total is None or t < total):
            seen.setdefault(t, []).append(words)
    return [(" or ".join(words[:2]), t) for t, words in seen.items()]


def wrong_timestep(case: Case) -> Iterator[Candidate]:
    """The energy's gradient at another timestep: of all, of one module alone, or of all but the denoiser."""
    others = other_timesteps(case)
    if not _reacts(case, others):
        return
    for words, t in others:
        if _fits(case, t):
            yield from _at(case, words, t, case.energy, case.timed(t))
    for name, module in (("denoiser", case.denoiser), ("guide", case.guide)):
        if module is None or not _takes_time(case, module):
            continue
        for words, t in others:
            yield from _at(case, f"of the {name} alone: {words}", t, _with(case, module, t))
    if case.denoiser is not None and _takes_time(case, case.denoiser):
        kept = _with(case, case.denoiser, case.timestep or 0.0)
        for words, t in others:
            if _fits(case, t):
                yield from _at(case, f"of all but the denoiser: {words}", t, kept, case.timed(t))


def _at(case: Case, words: str, t: float, energy: Energy, changed: Any = None) -> Iterator[Candidate]:
    slopes = case.slopes(energy, None, changed)
    if slopes is not None:
        yield Candidate("wrong_timestep", words, slopes, {"timestep_taken": t})


def _with(case: Case, module: nn.Module, t: float) -> Energy:
    return variations.with_time(case.energy, module, lambda now: torch.full_like(now, t))


def _fits(case: Case, t: float) -> bool:
    """Whether the user's type of timesteps holds this one."""
    kind = case.t.dtype if isinstance(case.t, Tensor) else torch.as_tensor(case.t).dtype
    return kind.is_floating_point or t == int(t)


def _reacts(case: Case, others: list[tuple[str, float]]) -> bool:
    """Whether the energy depends on the timestep at all, which saves many tests."""
    here = case.measure.at(case.energy, case.x, case.t)
    fitting = [t for _, t in others if _fits(case, t)]
    for t in fitting[:2] + fitting[-1:]:
        there = case.measure.at(case.energy, case.x, case.timed(t))
        if not torch.equal(here, there):
            return True
    return False


def _takes_time(case: Case, module: nn.Module) -> bool:
    try:
        case.measure.at(variations.with_time(case.energy, module, lambda now: now), case.x, case.t)
    except GradscopeError:
        return False
    return True
