"""Make a `GuidedStep` of what was seen of one evaluation."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradscope.sampling.process import Times
from gradscope.watching.classifier_free import Guided, Undecidable, guided_by, parts_of
from gradscope.watching.evaluation import Evaluation, undoubled
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
    calls: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Fields of the step that could not be seen, each with the reason."""
    additive: bool = False
    """Whether the loop changed prev_sample after the scheduler's step."""


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
    additive: bool
    """Whether the loop changes prev_sample after the scheduler's step, as an earlier step showed."""
    label: Tensor | None
    minimize: bool | None
    order: int | None = None
    """Index of the conditional prediction, if an earlier step told it."""
    repeat: int = 0


def seen_step(evaluation: Evaluation, context: Context) -> Seen:
    """The step of an evaluation.

    Raises
    ------
    Undecidable
        The loop guides by classifier-free guidance in a way that cannot be told.
    """
    x_t = evaluation.point
    unguided = _unguided(evaluation, x_t)
    x_0 = _original(unguided, x_t, context)
    found = found_gradient(evaluation, x_t, x_0)
    if found is None:
        guided = _classifier_free(evaluation, x_t, context.order)
        if guided is None:
            return Seen(None, calls=evaluation.calls)
        return _implied(evaluation, guided, x_t, context)
    return _explicit(evaluation, found, unguided, x_0, x_t, context)


def _unguided(evaluation: Evaluation, x_t: Tensor) -> Tensor | None:
    """The denoiser's own prediction, ``(n, *sample)``, if it is one per sample."""
    for output in reversed(evaluation.outputs):
        whole = output if len(output) == len(x_t) else undoubled(output)
        if whole.ndim == x_t.ndim and len(whole) == len(x_t) and whole.shape[1] == 2 * x_t.shape[1]:
            whole = whole[:, : x_t.shape[1]]
        if whole.shape == x_t.shape:
            return whole
    return None


def _original(prediction: Tensor | None, x_t: Tensor, context: Context) -> Tensor | None:
    """x0-hat, clamped where the scheduler clips; None if it is not known."""
    kind, level = context.process.predicts, context.level
    if prediction is None or kind is None or level is None or (level.signal == 0 and kind == "epsilon"):
        return None
    x_0 = level.original(prediction.to(x_t.dtype), x_t, kind)
    bound = context.process.clip_range
    return x_0 if bound is None else x_0.clamp(-bound, bound)


def _epsilon(prediction: Tensor | None, x_t: Tensor, context: Context) -> Tensor | None:
    kind, level = context.process.predicts, context.level
    if prediction is None or kind is None or level is None or (level.noise == 0 and kind != "epsilon"):
        return None
    return level.epsilon(prediction.to(x_t.dtype), x_t, kind)


def _classifier_free(evaluation: Evaluation, x_t: Tensor, order: int | None) -> Guided | None:
    """How the scheduler's prediction combines the denoiser's; None without classifier-free guidance."""
    prediction = evaluation.prediction
    if prediction is None or not evaluation.outputs:
        return None
    if prediction.shape != x_t.shape:
        prediction = prediction[:, : x_t.shape[1]]
    return guided_by(prediction, parts_of(evaluation.outputs, len(x_t), x_t.shape[1:]), order)


def _implied(evaluation: Evaluation, guided: Guided, x_t: Tensor, context: Context) -> Seen:
    """The step of classifier-free guidance: the gradient of the implicit classifier's log-probability."""
    if context.level is None or context.process.predicts is None:
        raise Undecidable(
            "classifier-free guidance: the noise level or the prediction type is not known; give the scheduler, or "
            "alphas_cumprod= and prediction_type="
        )
    level, kind, wide = context.level, context.process.predicts, x_t.double()
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
        pred_original_sample=_original(guided.unconditional, x_t, context),
        shift=shift,
        label=context.label,
    )
    step = replace(step, conditional_output=eps_c, conditional_original_sample=x_0, guidance_weight=guided.scale)
    additive = _additive(evaluation, context)
    return Seen(
        step,
        CLASSIFIER_FREE,
        order=guided.order,
        scale=guided.scale,
        gradients=1,
        calls=evaluation.calls,
        missing=missing,
        additive=additive,
    )


def _explicit(
    evaluation: Evaluation, found: Found, unguided: Tensor | None, x_0: Tensor | None, x_t: Tensor, context: Context
) -> Seen:
    """The step of a guide whose gradient the loop took by autograd."""
    label, descends = target(found.call)
    descends = bool(descends) if context.minimize is None else context.minimize
    label = context.label if context.label is not None else label
    logits, energy = logits_seen(found.call), energy_seen(found.call, len(x_t))
    kind = CLASSIFIER if logits is not None else ENERGY
    shift, missing = _shift(evaluation, unguided, context)
    if label is None and kind == CLASSIFIER:
        missing["label"] = (
            "the labels could not be told from the guide's gradient; give labels=, or call watched.labels(y)"
        )
    if x_0 is None:
        missing["pred_original_sample"] = (
            "the noise level or the prediction type is not known; give the scheduler, or alphas_cumprod= and "
            "prediction_type="
        )
    step = _step(
        evaluation,
        context,
        x_t=x_t,
        gradient=-found.gradient if descends else found.gradient,
        model_output=_epsilon(unguided, x_t, context),
        pred_original_sample=x_0,
        shift=shift,
        label=label,
        logits=logits if logits is None or len(logits) == len(x_t) else None,
        energy=None if energy is None else -energy if descends else energy,
    )
    if context.process.num_train_timesteps is None:
        missing["num_train_timesteps"] = "the range of timesteps is not known; give the scheduler, or alphas_cumprod="
    additive = _additive(evaluation, context)
    return Seen(
        step,
        kind,
        found.classifier_input,
        descends,
        gradients=found.count,
        calls=evaluation.calls,
        missing=missing,
        additive=additive,
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
        clip_range=context.process.clip_range,
        sigma=context.sigma if times is None else times.sigma,
        noise_added=None if times is None else times.noise_added,
        alphas_cumprod=None if context.level is None else context.level.alphas_cumprod,
        num_train_timesteps=context.process.num_train_timesteps,
        **given,
    )


def _shift(evaluation: Evaluation, unguided: Tensor | None, context: Context) -> tuple[Tensor | None, dict[str, str]]:
    """Guided minus unguided prev_sample, a difference in the loop's precision; or the reason why it is not known."""
    taken = evaluation.step
    if taken is None or taken.prev_sample is None:
        return None, {"shift": "the loop calls no scheduler.step that is watched"}
    if unguided is None:
        return None, {"shift": "the denoiser's unguided prediction was not seen"}
    if context.next_x_t is None and context.additive:
        return None, {"shift": "the loop changes prev_sample, and what follows was not seen; call watched.final(x)"}
    guided = taken.prev_sample if context.next_x_t is None else context.next_x_t
    prediction = taken.prediction
    if unguided.shape == prediction.shape and torch.equal(unguided.to(prediction.dtype), prediction):
        base: Tensor | None = taken.prev_sample
    else:
        base = without_guidance(taken, _like(unguided, prediction))
    if base is None or undoubled(base).shape[1:] != guided.shape[1:]:
        return None, {"shift": "the scheduler's step could not be repeated without guidance"}
    base, guided = (t if len(t) == len(evaluation.point) else undoubled(t) for t in (base, guided))
    if base.shape != guided.shape:
        return None, {"shift": "the next noisy samples have another shape"}
    return guided.to(base.dtype) - base, {}


def next_samples(evaluation: Evaluation, context: Context) -> Tensor | None:
    """The samples after the step, ``(n, *sample)``; None if they were not seen."""
    if context.next_x_t is not None or context.additive or evaluation.step is None:
        return context.next_x_t
    prev_sample = evaluation.step.prev_sample
    return prev_sample if prev_sample is None or len(prev_sample) == len(evaluation.point) else undoubled(prev_sample)


def _like(unguided: Tensor, prediction: Tensor) -> Tensor:
    """The unguided prediction in the form that the scheduler got the guided one: doubled, or with variances."""
    made = unguided if len(prediction) == len(unguided) else torch.cat([unguided, unguided])
    if made.shape[1:] != prediction.shape[1:]:
        made = torch.cat([made.to(prediction.dtype), prediction[:, made.shape[1] :]], dim=1)
    return made.to(prediction.dtype)


def _additive(evaluation: Evaluation, context: Context) -> bool:
    taken, following = evaluation.step, context.next_x_t
    if taken is None or taken.prev_sample is None or following is None:
        return False
    given = taken.prev_sample if len(taken.prev_sample) == len(following) else undoubled(taken.prev_sample)
    return given.shape != following.shape or not torch.equal(given.to(following.dtype), following)
