"""The gradient of one evaluation: where the loop took it, of what, and for which labels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from gradscope.watching.evaluation import Evaluation, GuideCall, Leaf, same

AT_X0, ELSEWHERE = "at_x0", "elsewhere"
"""Values of `classifier_input` for a gradient that is not taken at x_t."""
_CLOSE = 1e-3


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
    call: GuideCall | None
    """The guide's call that it passed through; None if it passed through no guide."""


def found_gradient(evaluation: Evaluation, x_t: Tensor, x_0: Tensor | None) -> Found | None:
    """The last gradient at x_t; else the last one at another point; None if the loop took none.

    Parameters
    ----------
    evaluation
        What was seen.
    x_t
        The noisy samples.
    x_0
        The predicted clean samples, if they are known.
    """
    leaves = [leaf for leaf in evaluation.leaves.values() if leaf.gradient is not None]
    calls = [call for call in evaluation.guide_calls if call.gradient is not None or call.of_output is not None]
    count = sum(leaf.count for leaf in leaves) or sum(call.count for call in calls)
    call = calls[-1] if calls else None
    at_x_t = [leaf for leaf in leaves if same(leaf.value, x_t)]
    if at_x_t:
        leaf = at_x_t[-1]
        assert leaf.gradient is not None
        return Found(leaf.gradient, _input(leaf, call), count, call)
    other = [(leaf.value, leaf.gradient) for leaf in leaves] or [(call.value, call.gradient) for call in calls]
    fitting = [(value, gradient) for value, gradient in other if gradient is not None and value.shape == x_t.shape]
    if not fitting:
        return None
    value, gradient = fitting[-1]
    near = x_0 is not None and _relative(value, x_0) < _CLOSE
    return Found(gradient, AT_X0 if near else ELSEWHERE, count, call)


def _input(leaf: Leaf, call: GuideCall | None) -> str:
    if leaf.is_guide_input or (call is not None and same(call.value, leaf.value)):
        return "x_t"
    return "x0" if leaf.through_denoiser or not leaf.of_guide else "x0_detached"


def _relative(value: Tensor, other: Tensor) -> float:
    return float((value.double() - other.double()).norm() / other.double().norm().clamp(min=1e-30))


def target(call: GuideCall | None) -> tuple[Tensor | None, bool | None]:
    """Labels ``(n,)`` and whether the loop descends, as the gradient with respect to the guide's logits tells.

    The gradient of log p_y, or of the logit z_y, is positive at y alone; that of a loss is negative there alone. With
    two classes a gradient has one element of either sign, so only a gradient of a single logit tells. Where the guide
    is certain, 1 - p_y rounds to 0: then y is the class that it predicts.

    Returns
    -------
    tuple
        Labels, or None; True for a loss, which the loop descends, False for a log-probability, None if unknown.
    """
    if call is None or call.of_output is None or call.of_output.ndim != 2 or call.of_output.shape[1] < 2:
        return None, None
    slope, logits = call.of_output, logits_seen(call)
    above, below = (slope > 0).sum(dim=1), (slope < 0).sum(dim=1)
    ascends, descends = (above == 1) & (below != 1), (below == 1) & (above != 1)
    if logits is None or bool(ascends.any()) == bool(descends.any()):
        return None, None
    is_loss = bool(descends.any())
    own, others = (below, above) if is_loss else (above, below)
    certain = (own == 0) & (others != 1)
    if not bool(((own == 1) | certain).all()):
        return None, None
    label = slope.argmin(dim=1) if is_loss else slope.argmax(dim=1)
    return label.where(own == 1, logits.argmax(dim=1)), is_loss


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
