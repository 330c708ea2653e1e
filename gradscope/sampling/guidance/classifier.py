"""Classifier guidance: the gradient of log p(y | input) with respect to x_t.

Equation 1 of GradCheck (arXiv 2406.17399, after arXiv 2105.05233): the posterior mean is shifted by
``guidance_scale * weight_t * direction``. The classifier sees

- ``x_t``: the noisy sample itself;
- ``x0``: x0-hat(x_t), differentiated through the U-Net;
- ``x0_detached``: x0-hat with the predicted noise held constant, so that the gradient passes the clamp and the factor
  1 / sqrt(alphas_cumprod), without a backward pass through the U-Net.

With `SmoothGrad` the gradient at the classifier's input is a mean over noised inputs; the U-Net runs once all the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import ClassifierInput, Normalize, Objective, Weight
from gradscope.errors import GradscopeError, one_of
from gradscope.models.calls import logits_of
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import Prediction, Schedule, Times

Denoise = Callable[[Tensor], Tensor]
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Evidence:
    """What one look of the guide at x_t gives."""

    gradient: Tensor
    """Of the objective with respect to x_t, ``(n, channel, height, width)``, float64: a convinced guide's lies below
    float32's range."""
    logits: Tensor
    """``(n, classes)``, of the input without SmoothGrad's noise."""
    prediction: Prediction
    objective: Callable[[Tensor, Tensor], Tensor]
    """As a function of x_t and labels; see `GuidedStep.objective`."""
    log_factor: Tensor
    """Logarithm of what the models' own gradients were multiplied by, ``(n,)``, float64; see `objectives`."""
    defined: bool = True
    """False with x0_detached at signal 0, where its factor 1 / sqrt(alphas_cumprod) is infinite: the gradient is 0."""


@dataclass(frozen=True)
class ClassifierGuidance:
    """A classifier and the way it guides.

    Raises
    ------
    GradscopeError
        For an unknown choice.

    Examples
    --------
    >>> ClassifierGuidance(classifier, classifier_input="x0", guidance_scale=0.4).normalize
    'l2'
    """

    classifier: nn.Module
    """Images ``(n, channel, height, width)`` in the denoiser's range -> logits ``(n, classes)``; see `as_logits`. It
    gets a copy of its input, in the type of its weights."""
    classifier_input: ClassifierInput = "x_t"
    guidance_scale: float = 1.0
    """Below 0 it steers away from the target; 0 takes gradients and does not guide."""
    objective: Objective = "log_prob"
    normalize: Normalize = "l2"
    """What is done to the update before it is scaled, per sample."""
    weight: Weight = "one"
    """Factor of the shift: 1, the standard deviation or the variance of the step's noise (DDPM)."""
    interval: tuple[int, int] | None = None
    """Timesteps ``first <= t < end`` that are guided (default: all); elsewhere gradients are taken, shift is 0."""
    smoothgrad: SmoothGrad | None = None
    """Average the gradient over noised inputs of the classifier."""

    def __post_init__(self) -> None:
        choices: dict[str, Any] = {
            "classifier_input": ClassifierInput,
            "objective": Objective,
            "normalize": Normalize,
            "weight": Weight,
        }
        for key, choice in choices.items():
            if getattr(self, key) not in get_args(choice):
                got = getattr(self, key)
                raise GradscopeError(f"guidance.{key}: got {got!r}; {one_of(got, get_args(choice))}")
        scale = self.guidance_scale
        if isinstance(scale, bool) or not isinstance(scale, Real) or not abs(scale) <= _LARGEST:
            raise GradscopeError(f"guidance.guidance_scale: a finite number within float32's range, got {scale!r}")
        interval = self.interval
        if interval is not None and (
            not isinstance(interval, tuple | list)
            or len(interval) != 2
            or not all(isinstance(t, Real) and not isinstance(t, bool) for t in interval)
        ):
            raise GradscopeError(f"guidance.interval: two timesteps, first <= t < end, or None; got {interval!r}")

    def evaluate(
        self,
        x_t: Tensor,
        label: Tensor,
        times: Times,
        schedule: Schedule,
        denoise: Denoise,
        seeds: Sequence[int] = (),
    ) -> Evidence:
        """Gradient at x_t for the target classes `label`, and the denoiser's prediction, with one U-Net pass.

        `denoise` takes any number of samples at this timestep; `seeds`, one a sample, are SmoothGrad's.
        """
        x = x_t.detach().requires_grad_()
        defined = self.classifier_input != "x0_detached" or times.alphas_cumprod > 0
        with torch.enable_grad():
            prediction = self._predict(x, times, schedule, denoise)
            if self.classifier_input == "x0" and not prediction.native.requires_grad:
                raise GradscopeError(
                    "guidance.classifier_input: x0 is differentiated through the denoiser, whose output has no graph: "
                    "does it run under torch.no_grad or inference_mode, or detach? let it have one, or take x0_detached"
                )
            seen = self._seen(x, prediction, times, schedule) if defined else prediction.pred_original_sample
            with torch.set_grad_enabled(self.smoothgrad is None and defined):
                logits = (_checked_logits if times.step == 0 else logits_of)(self.classifier, seen)
            if times.step == 0:
                _check_labels(label, logits, self.objective)
            value, log_factor = objectives.scores(self.objective, logits, label)
            if not defined:
                gradient = torch.zeros_like(x, requires_grad=False)
            elif self.smoothgrad is None:
                gradient = objectives.slope(value, x)
            else:
                at_seen, log_factor = self.smoothgrad.gradient(
                    lambda c: objectives.scores(self.objective, logits_of(self.classifier, c), label),
                    seen,
                    seeds,
                    times.step,
                )
                (gradient,) = torch.autograd.grad(seen, x, at_seen)
            gradient = objectives.scaled(gradient, log_factor)
        prediction = Prediction(
            prediction.native.detach(), prediction.model_output.detach(), prediction.pred_original_sample.detach()
        )
        objective = partial(self._objective, times=times, schedule=schedule, denoise=denoise)
        return Evidence(gradient, logits.detach(), prediction, objective, log_factor, defined)

    def _objective(self, x: Tensor, label: Tensor, times: Times, schedule: Schedule, denoise: Denoise) -> Tensor:
        """See `GuidedStep.objective`."""
        # x_t alone needs no prediction: the U-Net does not run.
        prediction = None if self.classifier_input == "x_t" else self._predict(x, times, schedule, denoise)
        return objectives.value(
            self.objective, logits_of(self.classifier, self._seen(x, prediction, times, schedule)), label
        )

    def _predict(self, x: Tensor, times: Times, schedule: Schedule, denoise: Denoise) -> Prediction:
        """The denoiser's prediction at x, with a graph through the U-Net only where the gradient goes through it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.classifier_input == "x0"):
            return schedule.predict(denoise(x), x, times)

    def _seen(self, x: Tensor, prediction: Prediction | None, times: Times, schedule: Schedule) -> Tensor:
        """The classifier's input, differentiable in x."""
        if prediction is None or self.classifier_input == "x_t":
            return x
        if self.classifier_input == "x0":
            return prediction.pred_original_sample
        return schedule.original_sample(x, prediction.model_output, times)

    def check_interval(self, schedule: Schedule) -> None:
        """Raise GradscopeError where the interval covers none of the schedule's timesteps."""
        if self.interval is not None and not any(self._acts(times) for times in schedule.times):
            first, last = schedule.times[0].timestep, schedule.times[-1].timestep
            raise GradscopeError(
                f"guidance.interval: no timestep lies in [{self.interval[0]}, {self.interval[1]}); the "
                f"{len(schedule.times)} steps go from {first} to {last}"
            )

    def _acts(self, times: Times) -> bool:
        return self.interval is None or self.interval[0] <= times.timestep < self.interval[1]

    def amount(self, times: Times) -> float:
        """``guidance_scale * weight_t``, 0 outside the interval."""
        if not self._acts(times):
            return 0.0
        weights: dict[Weight, float] = {
            "one": 1.0,
            "sigma": times.sigma_step,
            "variance": times.sigma_step**2,
        }
        return self.guidance_scale * weights[self.weight]


def _checked_logits(classifier: nn.Module, seen: Tensor) -> Tensor:
    """At the first step, where a classifier that does not fit shows."""
    try:
        return logits_of(classifier, seen)
    except (GradscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shape = " x ".join(map(str, seen.shape[1:]))
        raise GradscopeError(
            f"classifier: {type(classifier).__name__} fails on images of {shape} (channel, height, width), which the "
            f"denoiser makes: {type(error).__name__}: {error}"
        ) from error


def _check_labels(label: Tensor, logits: Tensor, objective: Objective) -> None:
    """Before the first gather: on CUDA an index out of range would end the process's context."""
    classes = logits.shape[1]
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= classes:
        raise GradscopeError(f"labels: the classifier has classes 0 to {classes - 1}, got {low if low < 0 else high}")
    if objective == "logit" and classes == 2 and low == 0 and not logits[:, 0].any():
        raise GradscopeError(
            "guidance.objective: this guide gives one logit, that of class 1; class 0 has none to differentiate, take "
            "log_prob"
        )
