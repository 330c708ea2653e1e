"""The shift of a step: guided minus unguided prev_sample, and the samples that follow."""

import torch
from torch import Tensor

from gradscope.watching.context import Context
from gradscope.watching.evaluation import Evaluation, first_rows
from gradscope.watching.scheduler_step import without_guidance


def own_prediction(evaluation: Evaluation) -> Tensor | None:
    """The denoiser's own prediction for x_t, ``(n, *sample)``; None if there are several or none."""
    x_t, found = evaluation.x_t, []
    for output in evaluation.outputs:
        whole = output
        if whole.ndim == x_t.ndim and whole.ndim > 1 and whole.shape[1] == 2 * x_t.shape[1]:
            whole = whole[:, : x_t.shape[1]]  # variances beside it
        found += [part for part in whole.split(len(x_t)) if part.shape == x_t.shape]
    alike = all(torch.equal(found[0], part) for part in found[1:])
    return found[-1] if found and alike else None


def shift_of(evaluation: Evaluation, unguided: Tensor | None, context: Context) -> tuple[Tensor | None, dict[str, str]]:
    """Guided minus unguided prev_sample, a difference in the loop's precision; or the reason why it is not known."""
    taken, rows = evaluation.step, len(evaluation.x_t)
    if taken is None or taken.prev_sample is None:
        return None, {"shift": "the loop calls no scheduler.step that is watched"}
    if unguided is None:
        return None, {"shift": "the denoiser makes several predictions a step, or none like x_t"}
    if context.next_x_t is None and not _is_known(evaluation, unguided, context):
        return None, {"shift": "the loop may change prev_sample, and what follows was not seen; call watched.final(x)"}
    guided = taken.prev_sample if context.next_x_t is None else context.next_x_t
    base: Tensor | None = taken.prev_sample
    if not _is_plain(evaluation, unguided):
        base = None if taken.is_foreign else without_guidance(taken, _like(unguided, taken.prediction))
    if base is None or base.shape[1:] != guided.shape[1:]:
        return None, {"shift": "the scheduler's step could not be repeated without guidance"}
    return first_rows(guided, rows).to(base.dtype) - first_rows(base, rows), {}


def _is_plain(evaluation: Evaluation, unguided: Tensor) -> bool:
    """Whether the scheduler got the denoiser's own prediction."""
    prediction = evaluation.prediction
    if prediction is None:
        return False
    return torch.equal(
        unguided.to(prediction.dtype), prediction[:, : unguided.shape[1]] if prediction.ndim > 1 else prediction
    )


def _is_known(evaluation: Evaluation, unguided: Tensor | None, context: Context) -> bool:
    """Whether prev_sample is what follows, though that was not seen: the loop guides through the prediction."""
    return context.additive is False or (
        context.additive is None and unguided is not None and not _is_plain(evaluation, unguided)
    )


def next_samples(evaluation: Evaluation, context: Context) -> Tensor | None:
    """The samples after the step, ``(n, *sample)``; None if they were not seen."""
    taken = evaluation.step
    if context.next_x_t is not None or taken is None or taken.prev_sample is None:
        return context.next_x_t
    # A loop that adds to prev_sample does so where it takes a gradient.
    known = not evaluation.has_gradient or _is_known(evaluation, own_prediction(evaluation), context)
    several = own_prediction(evaluation) is None and context.additive is not True
    return first_rows(taken.prev_sample, len(evaluation.x_t)) if known or several else None


def _like(unguided: Tensor, prediction: Tensor) -> Tensor:
    """The unguided prediction in the form that the scheduler got the guided one: repeated, or with variances."""
    made = torch.cat([unguided] * (len(prediction) // len(unguided)))
    if made.shape[1:] != prediction.shape[1:]:
        made = torch.cat([made.to(prediction.dtype), prediction[:, made.shape[1] :]], dim=1)
    return made.to(prediction.dtype)


def is_additive(evaluation: Evaluation, context: Context) -> bool | None:
    """Whether the next noisy samples differ from the scheduler's prev_sample."""
    taken, following = evaluation.step, context.next_x_t
    if taken is None or taken.prev_sample is None or following is None:
        return None
    given = first_rows(taken.prev_sample, len(following))
    return given.shape != following.shape or not torch.equal(given.to(following.dtype), following)
