"""Faster ways to run the models, and their deviation from float32 in eager mode."""

from collections.abc import Sequence
from copy import copy
from typing import NamedTuple

import torch
from torch import nn

from gradscope.config import ExecutionConfig
from gradscope.errors import GradscopeError
from gradscope.models.calls import frozen
from gradscope.sampling.sampler import GuidedSampler
from probes.numerics import norm

_TIMESTEPS = 3
_SAMPLES = 4


class Deviation(NamedTuple):
    """Largest deviations over some timesteps and samples."""

    gradient: float
    """|g - g_eager| / |g_eager|."""
    pred_original_sample: float
    """|x0 - x0_eager|, over all elements."""


def set_up(execution: ExecutionConfig, unet: nn.Module, classifiers: Sequence[nn.Module]) -> None:
    """Apply a configuration: compile the modules at their first call, and checkpoint the denoiser's activations.

    Raises
    ------
    GradscopeError
        The denoiser does not support gradient checkpointing.
    """
    if execution.gradient_checkpointing:
        try:
            unet.enable_gradient_checkpointing()  # type: ignore[operator]
        except (AttributeError, ValueError) as error:
            raise GradscopeError(
                f"execution.gradient_checkpointing: {type(unet).__name__} does not support it ({error})"
            ) from error
    if execution.compile:
        for module in (unet, *classifiers):
            module.compile()


def autocast(execution: ExecutionConfig) -> torch.dtype | None:
    return None if execution.autocast == "none" else getattr(torch, execution.autocast)


def is_exact(execution: ExecutionConfig) -> bool:
    """Whether the models run in float32 and eager mode."""
    return execution.autocast == "none" and not execution.compile


def deviation(sampler: GuidedSampler, labels: Sequence[int], seed: int = 0) -> Deviation:
    """Deviation of a sampler from itself in float32 and eager mode, at the same x_t.

    Both are evaluated on a trajectory of three steps and a few samples, taken in eager mode.
    """
    eager = copy(sampler)
    eager.autocast = None
    schedule = sampler.schedule(_TIMESTEPS)
    with torch.compiler.set_stance("force_eager"):
        steps = list(eager.steps(labels[:_SAMPLES], _TIMESTEPS, seed))
    gradient = pred_original_sample = 0.0
    with frozen(sampler.unet, sampler.guidance.classifier), torch.no_grad():
        for step in steps:
            times = schedule.times[step.step]
            assert step.label is not None
            assert step.pred_original_sample is not None
            seeds = range(len(step.label))
            found = sampler.evaluate(step.x_t, step.label, times, schedule, seeds)
            with torch.compiler.set_stance("force_eager"):
                exact = eager.evaluate(step.x_t, step.label, times, schedule, seeds)
            far, length = norm(found.gradient - exact.gradient), norm(exact.gradient)
            alike = (
                far == 0
            ) | ~length.isfinite()  # both may be zero; a gradient that is not finite in eager mode says nothing
            gradient = max(gradient, float((far / length).where(~alike, 0).nan_to_num(torch.inf).max()))
            moved = found.prediction.pred_original_sample - exact.prediction.pred_original_sample
            pred_original_sample = max(pred_original_sample, float(moved.abs().max()))
    return Deviation(gradient, pred_original_sample)
