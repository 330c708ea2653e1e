"""Make a `GuidedStep` of what was seen of one evaluation."""

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradscope.models.logits import as_logits
from gradscope.watching.classifier_free import Guided, Undecidable, guided_by, parts_of
from gradscope.watching.context import Context
from gradscope.watching.evaluation import Evaluation
from gradscope.watching.gradient import Found, energy_seen, found_gradient, logits_seen, target
from gradscope.watching.shift import is_additive, next_samples, own_prediction, shift_of
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


def seen_step(evaluation: Evaluation, context: Context) -> Seen:
    """The step of an evaluation.

    Raises
    ------
    Undecidable
        The predictions do not show how the loop guides.
    """
    x_t = evaluation.x_t
    unguided = own_prediction(evaluation)
    x_0 = _original(unguided, x_t, context)
    found = found_gradient(evaluation, x_0)
    if found is not None:
        return _explicit(evaluation, found, unguided, x_0, context)
    guided = None if context.has_guide else _classifier_free(evaluation, context.order)
    if guided is None:
        return Seen(None, calls=evaluation.count)
    return _implied(evaluation, guided, context)


def _original(prediction: Tensor | None, x_t: Tensor, context: Context) -> Tensor | None:
    """x0-hat, not clamped; None if it is not known."""
    kind, level = context.process.predicts, context.level
    if prediction is None or kind is None or level is None or (level.signal == 0 and kind == "epsilon"):
        return None
    return level.original(prediction.to(x_t.dtype), x_t, kind)


def _clamped(x_0: Tensor | None, evaluation: Evaluation, context: Context) -> Tensor | None:
    """x0-hat as the scheduler clamps it; None if it is not known."""
    if x_0 is None or context.process.thresholds:
        return None
    bound = context.process.clip_range if evaluation.step is not None else None  # the scheduler's step clamps
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
    shift, missing = shift_of(evaluation, guided.unconditional, context)
    step = _step(
        evaluation,
        context,
        x_t=x_t,
        gradient=gradient,
        update=evaluation.update,
        model_output=eps_u,
        pred_original_sample=_clamped(_original(guided.unconditional, x_t, context), evaluation, context),
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
        additive=is_additive(evaluation, context),
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
    if logits is None and energy is not None and context.label is not None:  # labels make one number a logit
        logits, energy = as_logits(energy), None
    kind = CLASSIFIER if logits is not None else ENERGY
    pred_original_sample = _clamped(x_0, evaluation, context)
    shift, missing = shift_of(evaluation, unguided, context)
    if label is None and kind == CLASSIFIER:
        missing["label"] = "the guide's gradient does not show the labels; give labels=, or call watched.labels(y)"
    if pred_original_sample is None:
        missing["pred_original_sample"] = _without_x_0(unguided, context)
    step = _step(
        evaluation,
        context,
        x_t=x_t,
        gradient=-found.gradient if descends else found.gradient,
        update=found.update,
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
        additive=is_additive(evaluation, context),
    )


def _step(evaluation: Evaluation, context: Context, **given: Any) -> GuidedStep:
    gradient = given["gradient"]
    times, scaled = context.times, evaluation.scaled
    finite = torch.isfinite(gradient).flatten(1).all(dim=1)
    return GuidedStep(
        step=evaluation.index or 0,
        timestep=context.timestep,
        repeat=context.repeat,
        model_input=None if scaled is None else scaled.to(evaluation.x_t.dtype),  # the denoiser's may be float16
        direction=gradient if given["update"] is None else given["update"],
        prev_sample=next_samples(evaluation, context),
        unguided=~finite,
        clip_range=context.process.clip_range if evaluation.step is not None else math.nan,
        sigma=context.sigma if times is None else times.sigma,
        noise_added=None if times is None else times.noise_added,
        alphas_cumprod=None if context.level is None else context.level.alphas_cumprod,
        signal=None if context.level is None else context.level.signal,
        noise=None if context.level is None else context.level.noise,
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
