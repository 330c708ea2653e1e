"""Causes that leave the direction of the gradient: its sign, a factor, a normalisation."""

from collections.abc import Iterator

import torch
from torch import Tensor

from gradscope.checking.calls import claimed
from gradscope.checking.case import Case, Fit
from gradscope.checking.measure import norm
from gradscope.errors import GradscopeError

_NEAR = 1e-3
"""Relative distance at which a factor is named."""


def named_factors(case: Case) -> Iterator[tuple[str, str, float]]:
    """Verdict, cause and value of each factor that is known, the likeliest first."""
    yield "wrong_sign", "", -1.0
    yield "doubled", "", 2.0
    yield "scaled", "2: images in [0, 1] against [-1, 1]", 2.0
    if case.n > 2 or (case.n == 2 and alone_differs(case)):
        yield "batch_mean", f"1/n with n = {case.n}", 1 / case.n
    yield "scaled", "1/2: images in [0, 1] against [-1, 1], or a mean of two", 0.5
    yield "scaled", "mean over elements", 1 / case.x_t[0].numel()
    yield "scaled", "mean over batch and elements", 1 / case.x_t.numel()
    for value in (255.0, 127.5):
        yield "scaled", f"{value:g}: images in [0, {value:g}]", value
        yield "scaled", f"1/{value:g}: images in [0, 255]", 1 / value
    level = None if case.process is None or case.timestep is None else case.process.level(case.timestep, None)
    if level is None:
        return
    signal, noise = level.signal, level.noise
    yield "scaled", "sqrt(alphas_cumprod)", signal
    if signal > 0:
        yield "scaled", "1/sqrt(alphas_cumprod)", 1 / signal
        yield "scaled", "1/alphas_cumprod", 1 / signal**2
        yield "scaled", "sigma of variance-exploding models, sqrt(1/alphas_cumprod - 1)", noise / signal
        yield "scaled", "sigma^2 of variance-exploding models, 1/alphas_cumprod - 1", (noise / signal) ** 2
        yield "scaled", "(1 - alphas_cumprod)/sqrt(alphas_cumprod)", noise**2 / signal
    yield "scaled", "noise_t, sqrt(1 - alphas_cumprod)", noise
    yield "scaled", "1 - alphas_cumprod", noise**2
    if noise > 0:
        yield "scaled", "1/sqrt(1 - alphas_cumprod)", 1 / noise
        yield "scaled", "1/(1 - alphas_cumprod)", 1 / noise**2
    yield from _of_steps(case, signal, noise)


def _of_steps(case: Case, signal: float, noise: float) -> Iterator[tuple[str, str, float]]:
    """Variance and standard deviation of DDPM's step, of one training timestep and of the loop's own."""
    process, t = case.process, case.timestep
    assert process is not None
    assert t is not None
    for before in following(case):
        level = process.level(before, None)
        if level is None or not 0 < signal**2 < level.signal**2:
            continue
        share, earlier = signal**2, level.signal**2
        beta = 1 - share / earlier
        variance = beta * (1 - earlier) / (1 - share)
        where = f"of the step to timestep {before:g}"
        yield "scaled", f"variance {where}", variance
        yield "scaled", f"sigma {where}", variance**0.5
        yield "scaled", f"beta {where}", beta
        yield "scaled", f"sqrt(beta) {where}", beta**0.5


def following(case: Case) -> list[float]:
    """The timesteps that may follow: the next one of the loop's, and the next lower one."""
    assert case.timestep is not None
    times = None if case.process is None else case.process.times()
    lower = [] if times is None else [float(t) for t in times if t < case.timestep]
    return sorted({max(lower, default=case.timestep - 1), case.timestep - 1}) if case.timestep >= 1 else []


def name_factor(case: Case, factor: float) -> tuple[str, str, list[tuple[str, str]]]:
    """Verdict and cause of a factor, and those of further ones as near."""
    fitting = [
        (verdict, cause, sign * value)
        for verdict, cause, value in named_factors(case)
        for sign in (1, -1)
        if abs(sign * value / factor - 1) < _NEAR and (verdict != "wrong_sign" or sign == 1)
    ]
    fitting.sort(key=lambda one: abs(one[2] / factor - 1) > 1e-5)
    named = [("wrong_sign", f"and {cause or verdict}") if v < 0 and verdict != "wrong_sign" else (verdict, cause)
             for verdict, cause, v in fitting]  # fmt: skip
    named = list(dict.fromkeys(named))
    if not named:
        return ("wrong_sign" if factor < 0 else "scaled"), f"factor {factor:.4g}", []
    verdict, cause = named[0]
    return verdict, cause, named[1:]


def alone_differs(case: Case) -> bool:
    """Whether the gradient of the first sample alone is n times that in the batch."""
    if case.cond_fn is None:
        return False
    t = case.t[:1] if isinstance(case.t, Tensor) and case.t.ndim else case.t
    try:
        alone = claimed(case.cond_fn, case.x_t[:1], t)
    except GradscopeError:
        return False
    together = case.claim[:1].flatten(1).double()
    wanted = case.n * together
    difference, size = float(norm(alone.flatten(1).double() - wanted)), float(norm(wanted))
    return size > 0 and difference < 1e-2 * size


def of_samples(case: Case, fit: Fit) -> tuple[str, str]:
    """Verdict and cause of a factor that differs between samples."""
    known = fit.informative & fit.cosine.isfinite()
    ratio, size = fit.ratio[known], norm(case.values)[known]
    if _near(size, size.median()) and float(size.median()) > 0 and bool((ratio > 0).all()):
        return "normalized", _which_norm(case, float(size.median()))
    p = case.measure.at(case.energy, case.x, case.t).double().exp()[known]
    if _near(ratio, p):
        return "probability", ""
    return "scaled_by_sample", f"from {float(ratio.min()):.4g} to {float(ratio.max()):.4g}"


def only_signs(case: Case) -> bool:
    """Whether the claim holds the signs of the gradient, times one magnitude."""
    return any(_signs(case, claim) for claim in case.claims)


def _signs(case: Case, claim: Tensor) -> bool:
    flat, truth = claim.flatten(1).double(), case.truth.value
    largest = flat.abs().amax(dim=1, keepdim=True)
    if not case.basis.whole or not bool((largest > 0).all()):
        return False
    known = truth.abs() > 1e-3 * truth.abs().amax(dim=1, keepdim=True) + 3 * case.truth.error
    alike = (flat - largest * truth.sign()).abs() <= _NEAR * largest
    return flat.shape[1] > 1 and bool(alike[known].all()) and float(known.double().mean()) > 0.5


def is_unit(case: Case) -> str:
    """Which norm the claim has, if that is 1 or a usual number, and proportional for any energy; else empty."""
    size = norm(case.values)
    size = size[size > 0]
    return _which_norm(case, float(size.median())) if len(size) and _near(size, size.median()) else ""


def _which_norm(case: Case, size: float) -> str:
    elements = case.x_t[0].numel()
    for name, value in (("l2 norm 1", 1.0), ("rms 1", elements**0.5), ("norm 1 over the batch", case.n**-0.5)):
        if abs(size / value - 1) < _NEAR:
            return name
    return ""


def _near(values: Tensor, others: Tensor) -> bool:
    return bool(torch.isclose(values, others.expand_as(values), rtol=_NEAR, atol=0).all())
