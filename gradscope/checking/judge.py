"""Find the verdict: right, a loss of precision, a factor, or the cause that explains the claim."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from gradscope.checking import scale
from gradscope.checking.batch import is_random, mixed, permuted
from gradscope.checking.case import Candidate, Case, Fit, Hypothesis
from gradscope.checking.causes import CAUSES, FURTHER, candidates
from gradscope.checking.checked import Checked, Confidence
from gradscope.checking.denoised import detached
from gradscope.checking.measure import norm
from gradscope.checking.precision import in_half, lost, rounding, underflows, wide_claim
from gradscope.checking.stabilized import orders
from gradscope.checking.verdicts import VERDICTS
from gradscope.errors import GradscopeError

_LOST = 0.05
"""Relative change from which on rounding is a loss."""
_FAINT = 1e-2
"""Norm beside the largest gradient of the batch above which a claim is no rounding."""
_VAGUE = ("not_the_gradient", "scaled_by_sample", "saturated")
"""Verdicts that rounding may feign."""
_NEEDS = {name: f"{name}=" for name in ("denoiser", "scheduler", "guide", "previous", "stabilizer")} | {
    "loop": "check_loop"
}


def judge(case: Case) -> Checked:
    """The verdict on a claim."""
    finite = case.claim.flatten(1).isfinite().all(dim=1)
    if not bool(finite.all()):
        rows = (~finite).nonzero().flatten().tolist()
        return Checked("not_finite", f"samples {_some(rows)}", {"samples": case.n, "affected": len(rows)})
    if (change := is_random(case)) is not None:
        return Checked("random", "", {"change": change, "samples": case.n})
    case.basis, case.truth = case.measure.reference(case.energy, case.x, case.t, case.claim)
    if case.declared.stabilizer is not None and not case.basis.whole:
        raise GradscopeError("stabilizer: it acts on elements, so the energy must be differentiable by autograd")
    if case.declared.classifier_input == "x0_detached":
        case.truth = detached(case)
    fit = case.fit(case.truth)
    if not fit.equal:
        case.tolerance = rounding(case)
        fit = case.fit(case.truth)
    return _right(case, fit) or _precision(case, fit) or _below_rounding(case, fit) or _fault(case, fit)


def _right(case: Case, fit: Fit) -> Checked | None:
    """The verdict where nothing contradicts the claim; None if something does."""
    compared = fit.informative & (torch.maximum(norm(case.values), case.truth.norm) > 0)
    if not bool(compared.any()):
        claimed = torch.zeros(1) if case.declared.normalize == "l2" else norm(case.values)
        noise = 3 * case.truth.noise if case.measure.by_autograd else torch.zeros_like(case.truth.noise)
        quiet = (claimed.to(noise) <= noise + case.least) & (case.truth.norm <= 3 * case.truth.noise + case.least)
        return _checked(case, fit, "flat" if bool(quiet.all()) else "undecided")
    if not fit.equal:
        return None
    if case.declared.normalize == "l2" and not scale.is_unit(case):
        return _checked(case, fit, "not_normalized")
    return _checked(case, fit, "right", remarks=_excused(fit))


def _excused(fit: Fit) -> tuple[str, ...]:
    """What is said of samples that deviate, though no more than kinks may explain."""
    others = int((fit.informative & ~fit.agrees).sum())
    text = f"{others} samples deviate by up to {fit.worst:.2g}, as kinks of the energy may make finite differences"
    return (text,) if others else ()


def _precision(case: Case, fit: Fit) -> Checked | None:
    """The verdict where the same code is right in float64; None if it is not."""
    case.wide_claim = wide_claim(case)
    fine = lost(case)
    known = fit.informative
    if not bool((fit.agrees | fine)[known].all()):
        return None
    worse = known & ~fit.agrees & (fit.deviation > _LOST)
    name = "float16_underflow" if in_half(case) else "saturated"
    if int(worse.sum()) * 2 > int(known.sum()):
        return _checked(case, fit, name)
    if not bool(worse.any()):
        return _checked(case, fit, "right", remarks=(f"rounding changes the gradient by up to {fit.worst:.2g}",))
    fit = fit.without(worse)
    remark = f"{int(worse.sum())} of {case.n} samples lose their gradient in rounding ({name}); the code is right"
    return _checked(case, fit, "right", remarks=(remark,))


def _below_rounding(case: Case, fit: Fit) -> Checked | None:
    """The verdict where only samples disagree whose reference no finite difference confirms; None if others do.

    Autograd of a saturated log_softmax is rounded in float64, too.
    """
    known = fit.informative
    wrong = known & ~fit.agrees
    confirmed = case.measure.confirmed
    if bool((wrong & confirmed).any()):
        return None
    if case.declared.normalize == "none" and case.declared.stabilizer is None and bool(confirmed.any()):
        if bool((norm(case.values) > _FAINT * case.truth.norm[confirmed].max())[wrong].any()):
            return None
    if bool((known & ~wrong).any()):
        remark = f"{int(wrong.sum())} of {case.n} samples have gradients below the rounding of the energy"
        return _checked(case, fit.without(wrong), "right", remarks=(remark,))
    found = _fault(case, fit)
    return _checked(case, fit, "undecided") if found.verdict in _VAGUE else found


def _fault(case: Case, fit: Fit) -> Checked:
    if not bool(case.claim.any()):
        return _zero(case, fit)
    if underflows(case):
        return _checked(case, fit, "float16_underflow")
    if (sequence := orders(case)) is not None:
        return _checked(case, fit, "order", sequence)
    if scale.only_signs(case):
        return _checked(case, fit, "sign_only")
    order = permuted(case)
    if order is None and (mixing := mixed(case)):
        return _checked(case, fit, "batch_mixed", mixing)
    plain = _of_factor(case, case.fits(case.truth))
    if (
        plain is not None
        and plain.verdict in ("wrong_sign", "doubled", "batch_mean")
        and not plain.cause.startswith(("factor", "and"))
    ):
        return plain
    tested = list(_tested(case))
    exact = [(c, f) for c, f in tested if f.equal]
    if not exact and plain is None:
        exact = [(c, f) for c, f in _tested(case, FURTHER) if f.equal]
    if exact:
        best = min(exact, key=lambda one: one[1].worst)[1].worst
        near = [c for c, f in exact if f.worst <= 10 * best + 1e-9] or [exact[0][0]]
        best_one = (near[0].verdict, near[0].cause)
        rest = [(c.verdict, c.cause) for c in near[1:] if (c.verdict, c.cause) != best_one]
        if plain is not None and plain.verdict != "scaled_by_sample" and not plain.cause.startswith("factor"):
            rest.extend({(plain.verdict, plain.cause)} - {best_one})
        return _checked(
            case,
            fit,
            near[0].verdict,
            near[0].cause,
            others=tuple(dict.fromkeys(rest)),
            unexplained=best,
            **near[0].evidence,
        )
    if plain is not None:
        return plain
    if order is not None:
        return _checked(case, fit, "rows_permuted", order)
    turned = [(c, f, f.factor) for c, f in tested if f.factor is not None]
    if turned:
        candidate, _, factor = turned[0]
        assert factor is not None
        verdict, cause, _ = scale.name_factor(case, factor)
        further = "" if abs(factor - 1) < 1e-2 else cause or verdict
        text = " and ".join(filter(None, (candidate.cause, further)))
        return _checked(case, fit, candidate.verdict, text, factor=factor, **candidate.evidence)
    loose = next((c for c, f in tested if f.parallel), None)
    if loose is not None and scale.is_unit(case):
        return _checked(case, fit, loose.verdict, " and ".join(filter(None, (loose.cause, "normalized"))))
    return _checked(case, fit, "not_the_gradient")


def _tested(case: Case, causes: Sequence[Hypothesis] = CAUSES) -> Iterator[tuple[Candidate, Fit]]:
    for candidate in candidates(case, causes):
        yield candidate, case.fits(candidate.slopes)


def _of_factor(case: Case, fit: Fit) -> Checked | None:
    """The verdict of a claim parallel to the gradient."""
    if not fit.parallel or case.declared.normalize == "l2":
        return None
    factor = fit.factor
    if factor is None:
        return _checked(case, fit, *scale.of_samples(case, fit))
    if abs(factor - 1) <= float(fit.allowed[fit.informative].median()):
        return _of_factor_one(case, fit)
    known = int((fit.informative & fit.cosine.isfinite()).sum())
    unit = scale.is_unit(case) if factor > 0 else ""
    verdict, cause, others = scale.name_factor(case, factor)
    if unit and (known == 1 or unit == "norm 1 over the batch") and cause.startswith("factor"):
        verdict, cause = "normalized", unit
    return _checked(case, fit, verdict, cause, others=tuple(others), factor=factor)


def _of_factor_one(case: Case, fit: Fit) -> Checked | None:
    """The verdict of a claim that equals the gradient, but for samples where it is zero or that kinks explain."""
    zero = fit.informative & ~fit.agrees & (norm(case.values) == 0)
    if bool(zero.any()):
        return _checked(case, fit, "zero", f"samples {_some(zero.nonzero().flatten().tolist())}")
    return _checked(case, fit, "right", remarks=_excused(fit)) if fit.near else None


def _zero(case: Case, fit: Fit) -> Checked:
    """The verdict on a claim that is zero everywhere."""
    exact = [c for c, f in _tested(case) if f.equal and c.verdict in ("dead_by_clamping", "jacobian_missing")]
    if exact:
        return _checked(case, fit, exact[0].verdict, exact[0].cause)
    largest = float(case.truth.value.abs().max())
    if case.basis.whole and largest < 6e-8 and case.narrow:
        return _checked(case, fit, "float16_underflow", "every element of g is below 6e-8")
    return _checked(case, fit, "zero")


def _checked(
    case: Case,
    fit: Fit,
    verdict: str,
    cause: str = "",
    *,
    others: tuple[tuple[str, str], ...] = (),
    remarks: tuple[str, ...] = (),
    **further: Any,
) -> Checked:
    known = fit.informative & fit.cosine.isfinite()
    ratio = fit.ratio[known]
    evidence: dict[str, Any] = {"cosine": _worst(fit.cosine[known])}
    if len(ratio):
        evidence |= {"ratio": float(ratio.median()), "ratio_low": float(ratio.min()), "ratio_high": float(ratio.max())}
    evidence |= {
        "deviation": fit.worst,
        "allowed": float(fit.allowed[fit.informative].max()) if bool(fit.informative.any()) else float("nan"),
        "gradient_norm": float(case.truth.norm.median()),
        "claim_norm": float(norm(case.values).median()),
        "samples": case.n,
        "compared": int(known.sum()),
        "reference": _reference(case),
        **further,
    }
    kind = VERDICTS[verdict].kind
    wrong = fit.informative & ~fit.agrees
    if kind == "fault" and bool(wrong.any()):
        evidence["wrong_samples"] = "all" if bool(wrong.all()) else _some(wrong.nonzero().flatten().tolist())
    confidence: Confidence = "none" if verdict in ("flat", "undecided") else _confidence(case, fit)
    return Checked(
        verdict,
        cause,
        evidence,
        confidence,
        others,
        remarks,
        {} if kind == "right" else _needs(case),
    )


def _needs(case: Case) -> dict[str, str]:
    given = {
        "denoiser": case.denoiser is not None,
        "scheduler": case.process is not None,
        "guide": case.guide is not None,
        "previous": case.previous is not None,
        "stabilizer": case.declared.stabilizer is not None,
        "loop": case.cond_fn is None,
    }
    found = {
        name: "needs " + ", ".join(_NEEDS[need] for need in verdict.needs if not given.get(need, False))
        for name, verdict in VERDICTS.items()
        if not all(given.get(need, False) for need in verdict.needs)
    }
    return found | case.untested


def _reference(case: Case) -> str:
    kind = "float64" if case.measure.fine else str(case.x.dtype).removeprefix("torch.")
    if case.measure.by_autograd:
        some = bool(case.measure.confirmed.any())
        confirmed = "confirmed by finite differences" if some else "finite differences are too coarse"
        return f"autograd in {kind}, {confirmed}"
    along = "every element" if case.basis.whole else f"{case.truth.value.shape[1]} directions"
    return f"finite differences in {kind} along {along}"


def _confidence(case: Case, fit: Fit) -> Confidence:
    allowed = float(fit.allowed[fit.informative].median())
    if allowed > 0.1 or not bool(case.measure.confirmed.any()):
        return "low"
    return "high" if case.basis.whole and allowed <= 0.01 else "medium"


def _worst(cosine: torch.Tensor) -> float:
    return float(cosine.min()) if len(cosine) else float("nan")


def _some(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:8])) + (", ..." if len(rows) > 8 else "")
