"""Classifier guidance: the gradient of log p(y | input) with respect to x_t.

Equation 1 of GradCheck (arXiv 2406.17399, after arXiv 2105.05233): the posterior mean is shifted by
``guidance_scale * weight_t * direction``. The classifier sees

- ``x_t``: the noisy sample itself;
- ``x0``: x0-hat(x_t), differentiated through the U-Net;
- ``x0_detached``: x0-hat with the predicted noise held constant: the gradient passes the clamp and the factor
  1 / sqrt(alphas_cumprod), without a backward pass through the U-Net.

A noise-aware classifier f(x, t) is asked about x_t at its timestep, and about x0-hat at t = 0, as of a clean image.

With `SmoothGrad` the gradient at the classifier's input is a mean over noised inputs. The U-Net still runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from numbers import Real
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor, nn

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import ClassifierInput, Normalize, Objective, Weight
from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.models.calls import logits_of
from gradscope.models.logits import timed
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import Prediction, Schedule, Times

Denoise = Callable[[Tensor], Tensor]
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Evidence:
    """Gradient and predictions at one x_t."""

    gradient: Tensor
    """Gradient of the objective with respect to x_t, ``(n, channel, height, width)``. It is float64, since the gradient
    of a saturated guide lies below float32's range."""
    logits: Tensor
    """Logits ``(n, classes)`` of the input without SmoothGrad's noise."""
    prediction: Prediction
    objective: Callable[[Tensor, Tensor], Tensor]
    """The objective as a function of x_t and labels; see `GuidedStep.objective`."""
    log_factor: Tensor
    """Logarithm of the factor between the models' own gradients and `gradient`, ``(n,)``, float64; see `objectives`."""
    defined: bool = True
    """False for x0_detached at signal 0, where 1 / sqrt(alphas_cumprod) is infinite; the gradient is then 0."""


@dataclass(frozen=True)
class ClassifierGuidance:
    """A classifier and its settings as a guide.

    Raises
    ------
    GradscopeError
        A setting is unknown or out of range.

    Examples
    --------
    >>> ClassifierGuidance(classifier, classifier_input="x0", guidance_scale=0.4).normalize
    'l2'
    """

    classifier: nn.Module
    """Maps images ``(n, channel, height, width)`` in the denoiser's range to logits ``(n, classes)``; see `as_logits`.
    It gets a copy of its input in the type of its weights."""
    classifier_input: ClassifierInput = "x_t"
    """Input of the classifier: ``x_t``, ``x0`` or ``x0_detached``."""
    guidance_scale: float = 1.0
    """Factor of the shift. 0 takes gradients without guiding; below 0 guidance steers away from the target."""
    objective: Objective = "log_prob"
    """Function to differentiate: the target's log-probability (``log_prob``) or logit (``logit``)."""
    normalize: Normalize = "l2"
    """``l2`` divides each sample's update by its norm; ``none`` does not."""
    weight: Weight = "one"
    """Factor of the shift: 1 (``one``), or the standard deviation (``sigma``) or variance of DDPM's noise."""
    interval: tuple[int, int] | None = None
    """Timesteps ``first <= t < end`` that are guided; None for all. At others gradients are taken, the shift is 0."""
    smoothgrad: SmoothGrad | None = None
    """Average the gradient over noised inputs of the classifier; None does not."""
    takes_timestep: bool | None = None
    """Whether the classifier is noise-aware, f(x, t); None: the signature of its forward says so, see
    `probes.timed.takes_timestep`."""
    timestep_at_x0: int = 0
    """Timestep at which a noise-aware classifier is asked about x0-hat, at least 0."""

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
            raise GradscopeError(
                f"guidance.guidance_scale: must be a finite number within float32's range, got {scale!r}"
            )
        whole_number(self.timestep_at_x0, "guidance.timestep_at_x0")
        interval = self.interval
        if interval is not None and (
            not isinstance(interval, tuple | list)
            or len(interval) != 2
            or not all(isinstance(t, Real) and not isinstance(t, bool) for t in interval)
        ):
            raise GradscopeError(
                f"guidance.interval: must be two timesteps, first <= t < end, or None; got {interval!r}"
            )

    @cached_property
    def _asked(self) -> nn.Module:
        """The classifier in the form that `logits_of` asks at a timestep."""
        return timed(self.classifier, self.takes_timestep)

    def evaluate(
        self,
        x_t: Tensor,
        label: Tensor,
        times: Times,
        schedule: Schedule,
        denoise: Denoise,
        seeds: Sequence[int] = (),
    ) -> Evidence:
        """Gradient and prediction at x_t, with one pass of the U-Net.

        Parameters
        ----------
        x_t
            Noisy samples, ``(n, channel, height, width)``.
        label
            Target classes, ``(n,)``, int64.
        times, schedule
            The step and its schedule.
        denoise
            The denoiser's output at this timestep, for any number of samples.
        seeds
            Seeds of SmoothGrad's noise, one per sample.

        Raises
        ------
        GradscopeError
            Classifier and images or labels do not fit each other, or an output has no graph to differentiate.
        """
        x = x_t.detach().requires_grad_()
        defined = self.classifier_input != "x0_detached" or times.alphas_cumprod > 0
        asked_at = self._timestep(times)
        with torch.enable_grad():
            prediction = self._predict(x, times, schedule, denoise)
            if self.classifier_input == "x0" and not prediction.native.requires_grad:
                raise GradscopeError(
                    "guidance.classifier_input: x0 is differentiated through the denoiser, but its output has no "
                    "graph: does it run under torch.no_grad or inference_mode, or detach? Otherwise take x0_detached"
                )
            seen = self._seen(x, prediction, times, schedule) if defined else prediction.pred_original_sample
            with torch.set_grad_enabled(self.smoothgrad is None and defined):
                logits = (_checked_logits if times.step == 0 else logits_of)(self._asked, seen, asked_at)
            if times.step == 0:
                _check_labels(label, logits, self.objective)
            value, log_factor = objectives.scores(self.objective, logits, label)
            if not defined:
                gradient = torch.zeros_like(x, requires_grad=False)
            elif self.smoothgrad is None:
                gradient = objectives.slope(value, x)
            else:
                at_seen, log_factor = self.smoothgrad.gradient(
                    lambda c: objectives.scores(self.objective, logits_of(self._asked, c, asked_at), label),
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
        # x_t needs no prediction, so the U-Net does not run.
        prediction = None if self.classifier_input == "x_t" else self._predict(x, times, schedule, denoise)
        seen = self._seen(x, prediction, times, schedule)
        return objectives.value(self.objective, logits_of(self._asked, seen, self._timestep(times)), label)

    def _predict(self, x: Tensor, times: Times, schedule: Schedule, denoise: Denoise) -> Prediction:
        """The denoiser's prediction at x; only x0 needs a graph through the U-Net."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.classifier_input == "x0"):
            return schedule.predict(denoise(x), x, times)

    def _seen(self, x: Tensor, prediction: Prediction | None, times: Times, schedule: Schedule) -> Tensor:
        """The classifier's input, differentiable in x."""
        if prediction is None or self.classifier_input == "x_t":
            return x
        if self.classifier_input == "x0":
            return prediction.pred_original_sample
        return schedule.original_sample(x, prediction.model_output, times)

    def _timestep(self, times: Times) -> float:
        """The timestep of the classifier's input."""
        return times.timestep if self.classifier_input == "x_t" else self.timestep_at_x0

    def check_interval(self, schedule: Schedule) -> None:
        """Raise GradscopeError if the interval covers none of the schedule's timesteps."""
        if self.interval is not None and not any(self._acts(times) for times in schedule.times):
            first, last = schedule.times[0].timestep, schedule.times[-1].timestep
            raise GradscopeError(
                f"guidance.interval: no timestep lies in [{self.interval[0]}, {self.interval[1]}); the "
                f"{len(schedule.times)} steps go from {first} to {last}"
            )

    def _acts(self, times: Times) -> bool:
        return self.interval is None or self.interval[0] <= times.timestep < self.interval[1]

    def amount(self, times: Times) -> float:
        """``guidance_scale * weight_t``; 0 outside the interval."""
        if not self._acts(times):
            return 0.0
        weights: dict[Weight, float] = {
            "one": 1.0,
            "sigma": times.sigma_step,
            "variance": times.sigma_step**2,
        }
        return self.guidance_scale * weights[self.weight]


def _checked_logits(classifier: nn.Module, seen: Tensor, timestep: float) -> Tensor:
    """Logits at the first step, with an error that explains why a classifier does not fit."""
    try:
        return logits_of(classifier, seen, timestep)
    except (GradscopeError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        shape = " x ".join(map(str, seen.shape[1:]))
        raise GradscopeError(
            f"classifier: {type(classifier).__name__} fails on images of {shape} (channel, height, width), as the "
            f"denoiser makes them: {type(error).__name__}: {error}"
        ) from error


def _check_labels(label: Tensor, logits: Tensor, objective: Objective) -> None:
    """Check labels before the first gather: on CUDA an index out of range makes the device unusable."""
    classes = logits.shape[1]
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= classes:
        raise GradscopeError(f"labels: the classifier has classes 0 to {classes - 1}, got {low if low < 0 else high}")
    if objective == "logit" and classes == 2 and low == 0 and not logits[:, 0].any():
        raise GradscopeError(
            "guidance.objective: this guide gives one logit, for class 1; class 0 has no logit to differentiate; take "
            "log_prob"
        )
