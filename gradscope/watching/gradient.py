"""The gradient of one evaluation: where the loop took it, of what, and for which labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.watching.evaluation import Evaluation, GuideCall, Point, same

AT_X0, ELSEWHERE = "at_x0", "elsewhere"
"""Values of `classifier_input` for a gradient that is not taken at x_t."""
_CLOSE = 1e-3
_PARALLEL = 0.999


@dataclass(frozen=True)
class Found:
    """A gradient that the loop took."""

    gradient: Tensor
    """With respect to the point, ``(n, *sample)``."""
    classifier_input: str
    """``x_t``, ``x0`` (through the denoiser) or ``x0_detached`` for a gradient at x_t; ``at_x0`` for one at x0-hat,
    ``elsewhere`` for any other point."""
    count: int
    """Number of gradients that the loop took in this evaluation."""
    at_point: int
    """Number of them at this point."""
    call: GuideCall | None
    """The guide's call that it passed through; None if it passed through no guide."""
    update: Tensor | None
    """The update that the user gave for it."""


def found_gradient(evaluation: Evaluation, x_0: Tensor | None) -> Found | None:
    """The last gradient at x_t; else the last one at another point; None if the loop took none.

    Parameters
    ----------
    evaluation
        What was seen.
    x_0
        The predicted clean samples, not clamped, if they are known.
    """
    x_t = evaluation.x_t
    points = [point for point in evaluation.points if point.gradient is not None]
    calls = [call for call in evaluation.guide_calls if call.gradient is not None]
    count = sum(point.count for point in points) or sum(call.count for call in calls)
    at_x_t = [point for point in points if same(point.value, x_t)]
    if at_x_t:
        point = max(reversed(at_x_t), key=lambda one: bool(one.calls))  # the last one that a guide depends on
        assert point.gradient is not None
        call = _differentiated(point.calls)
        return Found(point.gradient, _input(point, call, x_0), count, point.count, call, point.update)
    candidates: list[GuideCall | Point] = [*calls, *points]
    fitting = [one for one in candidates if one.value.shape == x_t.shape]
    if not fitting:
        return None
    found = fitting[-1]
    assert found.gradient is not None
    where = AT_X0 if _is_x0(found.value, x_0) else ELSEWHERE
    if isinstance(found, Point):
        return Found(found.gradient, where, count, found.count, _differentiated(found.calls), found.update)
    return Found(found.gradient, where, count, found.count, found, evaluation.update)


def _differentiated(calls: list[GuideCall]) -> GuideCall | None:
    """The last call whose output was differentiated."""
    return next((call for call in reversed(calls) if call.of_output is not None), calls[-1] if calls else None)


def _input(point: Point, call: GuideCall | None, x_0: Tensor | None) -> str:
    if point.through_denoiser or call is None:
        return "x0"
    return "x0_detached" if not same(call.value, point.value) and _is_x0(call.value, x_0) else "x_t"


def _is_x0(value: Tensor, x_0: Tensor | None) -> bool:
    """Whether a tensor is x0-hat, clamped or not."""
    if x_0 is None or value.shape != x_0.shape:
        return False
    bound = float(value.abs().max())
    return any(_relative(value, one) < _CLOSE for one in (x_0, x_0.clamp(-bound, bound)))


def _relative(value: Tensor, other: Tensor) -> float:
    return float((value.double() - other.double()).norm() / other.double().norm().clamp(min=1e-30))


def target(call: GuideCall | None) -> tuple[Tensor | None, bool | None]:
    """Labels ``(n,)`` and whether the loop descends, read off the gradient with respect to the guide's logits.

    The gradient of log p_y is parallel to ``onehot(y) - p``, that of the logit z_y to ``onehot(y)``, and that of a loss
    to the negative. With two classes ``onehot(0) - p`` and ``p - onehot(1)`` are parallel, so only a gradient of a
    single logit decides. Where the guide is certain, 1 - p_y rounds to 0: then y is the class that it predicts.

    Returns
    -------
    tuple
        Labels, or None; True for a loss, which the loop descends, False for a log-probability, None if unknown.
    """
    logits = logits_seen(call)
    slope = None if call is None else call.of_output
    if logits is None or slope is None or slope.shape != logits.shape:
        return None, None
    found = [(_labels(sign * slope.double(), logits.double()), sign < 0) for sign in (1, -1)]
    known = [(label, is_loss) for label, is_loss in found if label is not None]
    return known[0] if len(known) == 1 else (None, None)


def _labels(slope: Tensor, logits: Tensor) -> Tensor | None:
    """Labels whose log-probability or logit has these slopes; None if there are none."""
    certain = ~slope.any(dim=1)
    label = slope.argmax(dim=1).where(~certain, logits.argmax(dim=1))
    onehot = torch.nn.functional.one_hot(label, logits.shape[1]).double()
    p = logits.softmax(dim=1)
    fits = certain.clone()
    for direction in (onehot, onehot - p):
        fits |= torch.cosine_similarity(slope, direction, dim=1, eps=1e-300) > _PARALLEL
    # A certain guide: the target's own slope rounds to 0, and those of the others remain.
    predicted = torch.nn.functional.one_hot(logits.argmax(dim=1), logits.shape[1]).double()
    others = torch.cosine_similarity(slope, -p * (1 - predicted), dim=1, eps=1e-300) > _PARALLEL
    label = label.where(fits | ~others, logits.argmax(dim=1))
    return label if bool((fits | others).all()) and not bool(certain.all()) else None


def logits_seen(call: GuideCall | None) -> Tensor | None:
    """The guide's logits, ``(n, classes)``; None for a guide that gives a number."""
    if call is None or call.output is None:
        return None
    output = call.output
    return output if output.ndim == 2 and output.shape[1] > 1 and output.is_floating_point() else None


def energy_seen(call: GuideCall | None, samples: int) -> Tensor | None:
    """The guide's value, one number per sample, ``(n,)``; None if it gives something else."""
    if call is None or call.output is None or logits_seen(call) is not None:
        return None
    output = call.output
    if output.numel() != samples or not output.is_floating_point():
        return None
    return torch.reshape(output, (samples,))
