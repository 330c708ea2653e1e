"""Make a `GuidedStep` of what was seen of one evaluation."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradscope.sampling.process import Times
from gradscope.watching.classifier_free import Guided, Undecidable, guided_by, parts_of
from gradscope.watching.evaluation import Evaluation, first_rows
from gradscope.watching.gradient import Found, energy_seen, found_gradient, logits_seen, target
from gradscope.watching.noise_level import Level
from gradscope.watching.process import Process
from gradscope.watching.scheduler_step import without_guidance
from probes import GuidedStep

CLASSIFIER, ENERGY, CLASSIFIER_FREE = "classifier", "energy", "classifier_free"
"""Kinds of guidance."""


@dataclass
class Seen:
    """A step, and what it says about the loop."""

    step: GuidedStep | None
    """None if the loop took no gradient."""
    kind: str = CLASSIFIER
    classifier_input: str = "x_t"
    descends: bool = False
    """Whether the loop took the gradient of a loss; the step's gradient is its negative."""
    order: int | None = None
    """Index of the conditional prediction."""
    scale: float | None = None
    """Scale of classifier-free guidance, w in u + w (c - u)."""
    gradients: int = 0
    at_point: int = 1
    """Number of gradients at the point whose last one is the step's."""
    calls: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Fields of the step that could not be seen, each with the reason."""
    additive: bool | None = None
    """Whether the loop changed prev_sample after the scheduler's step; None if that was not seen."""


@dataclass(frozen=True)
class Context:
    """What is known besides the evaluation."""

    process: Process
    timestep: float
    level: Level | None
    times: Times | None
    """Constants of the step, for schedulers that are known exactly."""
    sigma: float | None
    """Standard deviation of the DDPM posterior at the step, if it is known."""
    next_x_t: Tensor | None
    """The next noisy samples, or the final ones."""
    additive: bool | None
    """Whether the loop changes prev_sample after the scheduler's step, as an earlier guided step showed; None if none
    did."""
    label: Tensor | None
    minimize: bool | None
    has_guide: bool
    """Whether the user named a guide; then two predictions are not taken for classifier-free guidance."""
    order: int | None = None
    """Index of the conditional prediction, if an earlier step told it."""
    repeat: int = 0
    is_stepped: bool = True
    """Whether the loop calls the scheduler's step, which clamps x0-hat if the scheduler says so."""

    @property
    def clip_range(self) -> float | None:
        """Bound of x0-hat; None if it is not clamped, or not known to be."""
        return self.process.clip_range if self.is_stepped else None


def seen_step(evaluation: Evaluation, context: Context) -> Seen:
    """The step of an evaluation.

    Raises
    ------
    Undecidable
        The loop guides by classifier-free guidance in a way that cannot be told.
    """
    x_t = evaluation.x_t
    unguided = _unguided(evaluation)
    x_0 = _original(unguided, x_t, context)
    found = found_gradient(evaluation, x_0)
    if found is not None:
        return _explicit(evaluation, found, unguided, x_0, context)
    guided = None if context.has_guide else _classifier_free(evaluation, context.order)
    if guided is None:
        return Seen(None, calls=evaluation.count)
    return _implied(evaluation, guided, context)


def _unguided(evaluation: Evaluation) -> Tensor | None:
    """The denoiser's own prediction for x_t, ``(n, *sample)``; None if there are several or none."""
    x_t, found = evaluation.x_t, []
    for output in evaluation.outputs:
        whole = output
        if whole.ndim == x_t.ndim and whole.ndim > 1 and whole.shape[1] == 2 * x_t.shape[1]:
            whole = whole[:, : x_t.shape[1]]  # variances beside it
        found += [part for part in whole.split(len(x_t)) if part.shape == x_t.shape]
    alike = all(torch.equal(found[0], part) for part in found[1:])
    return found[-1] if found and alike else None


def _original(prediction: Tensor | None, x_t: Tensor, context: Context) -> Tensor | None:
    """x0-hat, not clamped; None if it is not known."""
    kind, level = context.process.predicts, context.level
    if prediction is None or kind is None or level is None or (level.signal == 0 and kind == "epsilon"):
        return None
    return level.original(prediction.to(x_t.dtype), x_t, kind)


def _clamped(x_0: Tensor | None, context: Context) -> Tensor | None:
    """x0-hat as the scheduler clamps it; None if it is not known."""
    if x_0 is None or context.process.thresholds:
        return None
    bound = context.clip_range
    return x_0 if bound is None else x_0.clamp(-bound, bound)


def _epsilon(prediction: Tensor | None, x_t: Tensor, context: Context) -> Tensor | None:
    kind, level = context.process.predicts, context.level
    if prediction is None or kind is None or level is None or (level.noise == 0 and kind != "epsilon"):
        return None
    return level.epsilon(prediction.to(x_t.dtype), x_t, kind)


def _classifier_free(evaluation: Evaluation, order: int | None) -> Guided | None:
    """How the scheduler's prediction combines the denoiser's; None without classifier-free guidance."""
    x_t, prediction = evaluation.x_t, evaluation.prediction
    if prediction is None or not evaluation.calls:
        return None
    if prediction.shape != x_t.shape:
        prediction = prediction[:, : x_t.shape[1]]
    return guided_by(prediction, parts_of(evaluation.outputs, len(x_t), x_t.shape[1:]), order)


def _implied(evaluation: Evaluation, guided: Guided, context: Context) -> Seen:
    """The step of classifier-free guidance: the gradient of the implicit classifier's log-probability."""
    if context.level is None or context.process.predicts is None:
        raise Undecidable(
            "classifier-free guidance: the noise level or the prediction type is not known; give the scheduler, or "
            "alphas_cumprod= and prediction_type="
        )
    x_t, level, kind = evaluation.x_t, context.level, context.process.predicts
    wide = x_t.double()
    if level.noise == 0:
        raise Undecidable("classifier-free guidance: there is no noise at this step, so it implies no gradient")
    conditional, unconditional = guided.conditional.double(), guided.unconditional.double()
    eps_c, eps_u = (level.epsilon(part, wide, kind) for part in (conditional, unconditional))
    gradient = -(eps_c - eps_u) / level.noise
    x_0 = None if level.signal == 0 and kind == "epsilon" else level.original(conditional, wide, kind)
    shift, missing = _shift(evaluation, guided.unconditional, context)
    step = _step(
        evaluation,
        context,
        x_t=x_t,
        gradient=gradient,
        model_output=eps_u,
        pred_original_sample=_clamped(_original(guided.unconditional, x_t, context), context),
        shift=shift,
        label=context.label,
    )
    step = replace(step, conditional_output=eps_c, conditional_original_sample=x_0, guidance_weight=guided.scale)
    return Seen(
        step,
        CLASSIFIER_FREE,
        order=guided.order,
        scale=float(guided.scale.median()),
        gradients=1,
        calls=evaluation.count,
        missing=missing,
        additive=_additive(evaluation, context),
    )


def _explicit(
    evaluation: Evaluation, found: Found, unguided: Tensor | None, x_0: Tensor | None, context: Context
) -> Seen:
    """The step of a guide whose gradient the loop took by autograd."""
    x_t = evaluation.x_t
    label, descends = target(found.call)
    descends = bool(descends) if context.minimize is None else context.minimize
    label = context.label if context.label is not None else label
    label = label if label is not None and len(label) == len(x_t) else None
    logits, energy = logits_seen(found.call), energy_seen(found.call, len(x_t))
    kind = CLASSIFIER if logits is not None else ENERGY
    pred_original_sample = _clamped(x_0, context)
    shift, missing = _shift(evaluation, unguided, context)
    if label is None and kind == CLASSIFIER:
        missing["label"] = "the guide's gradient does not tell the labels; give labels=, or call watched.labels(y)"
    if pred_original_sample is None:
        missing["pred_original_sample"] = _without_x_0(unguided, context)
    step = _step(
        evaluation,
        context,
        x_t=x_t,
        gradient=-found.gradient if descends else found.gradient,
        model_output=_epsilon(unguided, x_t, context),
        pred_original_sample=pred_original_sample,
        shift=shift,
        label=label,
        logits=logits if logits is None or len(logits) == len(x_t) else None,
        energy=None if energy is None else -energy if descends else energy,
    )
    if context.process.num_train_timesteps is None:
        missing["num_train_timesteps"] = "the range of timesteps is not known; give the scheduler, or alphas_cumprod="
    return Seen(
        step,
        kind,
        found.classifier_input,
        descends,
        gradients=found.count,
        at_point=found.at_point,
        calls=evaluation.count,
        missing=missing,
        additive=_additive(evaluation, context),
    )


def _step(evaluation: Evaluation, context: Context, **given: Any) -> GuidedStep:
    gradient = given["gradient"]
    times = context.times
    finite = torch.isfinite(gradient).flatten(1).all(dim=1)
    return GuidedStep(
        step=evaluation.index or 0,
        timestep=context.timestep,
        repeat=context.repeat,
        update=evaluation.update,
        direction=gradient if evaluation.update is None else evaluation.update,
        prev_sample=next_samples(evaluation, context),
        unguided=~finite,
        clip_range=context.clip_range if evaluation.step is not None else math.nan,
        sigma=context.sigma if times is None else times.sigma,
        noise_added=None if times is None else times.noise_added,
        alphas_cumprod=None if context.level is None else context.level.alphas_cumprod,
        num_train_timesteps=context.process.num_train_timesteps,
        **given,
    )


def _without_x_0(unguided: Tensor | None, context: Context) -> str:
    """Why x0-hat is not known."""
    if unguided is None:
        return "the denoiser makes several predictions a step"
    if context.process.thresholds:
        return "the scheduler's dynamic thresholding of x0-hat is not repeated"
    return (
        "the noise level or the prediction type is not known; give the scheduler that the loop steps, or "
        "alphas_cumprod= and prediction_type="
    )


def _shift(evaluation: Evaluation, unguided: Tensor | None, context: Context) -> tuple[Tensor | None, dict[str, str]]:
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
    known = not evaluation.has_gradient or _is_known(evaluation, _unguided(evaluation), context)
    several = _unguided(evaluation) is None and context.additive is not True
    return first_rows(taken.prev_sample, len(evaluation.x_t)) if known or several else None


def _like(unguided: Tensor, prediction: Tensor) -> Tensor:
    """The unguided prediction in the form that the scheduler got the guided one: repeated, or with variances."""
    made = torch.cat([unguided] * (len(prediction) // len(unguided)))
    if made.shape[1:] != prediction.shape[1:]:
        made = torch.cat([made.to(prediction.dtype), prediction[:, made.shape[1] :]], dim=1)
    return made.to(prediction.dtype)


def _additive(evaluation: Evaluation, context: Context) -> bool | None:
    """Whether the next noisy samples differ from the scheduler's prev_sample."""
    taken, following = evaluation.step, context.next_x_t
    if taken is None or taken.prev_sample is None or following is None:
        return None
    given = first_rows(taken.prev_sample, len(following))
    return given.shape != following.shape or not torch.equal(given.to(following.dtype), following)
