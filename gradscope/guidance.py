"""Classifier guidance: the gradient of log p(y | input) with respect to x_t.

Equation 1 of GradCheck (arXiv 2406.17399, after arXiv 2105.05233): the posterior mean is shifted by
``guidance_scale * weight_t * direction``. The classifier sees

- ``x_t``: the noisy sample itself;
- ``x0``: x0-hat(x_t), differentiated through the U-Net;
- ``x0_detached``: x0-hat with the predicted noise held constant, so that the gradient passes the clamp and the factor
  1 / sqrt(alphas_cumprod), without a backward pass through the U-Net.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from gradscope.config import ClassifierInput, Normalize, Objective, Weight
from gradscope.errors import GradscopeError, one_of
from gradscope.schedule import Prediction, Schedule, Times


@dataclass(frozen=True)
class Evidence:
    """What one look of the guide at x_t gives."""

    gradient: Tensor
    """Of the objective with respect to x_t, ``(n, channel, height, width)``."""
    logits: Tensor
    """``(n, classes)``."""
    prediction: Prediction


@dataclass(frozen=True)
class ClassifierGuidance:
    """A classifier and the way it guides.

    Raises
    ------
    GradscopeError
        For an unknown choice.
    """

    classifier: nn.Module
    """Images ``(n, channel, height, width)`` in the denoiser's range -> logits ``(n, classes)``."""
    classifier_input: ClassifierInput = "x_t"
    guidance_scale: float = 1.0
    objective: Objective = "log_prob"
    normalize: Normalize = "l2"
    """What is done to the update before it is scaled, per sample."""
    weight: Weight = "one"
    """Factor of the shift: 1, the standard deviation or the variance of the step's noise (DDPM)."""
    interval: tuple[int, int] | None = None
    """Timesteps ``first <= t < end`` that are guided (default: all); elsewhere gradients are taken, shift is 0."""

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

    def evaluate(
        self, x_t: Tensor, label: Tensor, times: Times, schedule: Schedule, denoise: Callable[[Tensor], Tensor]
    ) -> Evidence:
        """Gradient at x_t for the target classes `label`, and the denoiser's prediction, with one U-Net pass."""
        x = x_t.detach().requires_grad_()
        with torch.set_grad_enabled(self.classifier_input == "x0"):
            prediction = schedule.predict(denoise(x), x, times)
        with torch.enable_grad():
            match self.classifier_input:
                case "x_t":
                    seen = x
                case "x0":
                    seen = prediction.pred_original_sample
                case "x0_detached":
                    seen = schedule.original_sample(x, prediction.model_output, times)
            logits = self.classifier(seen)
            if times.step == 0:
                _check_labels(label, logits.shape[1])
            scores = logits.float().log_softmax(dim=1) if self.objective == "log_prob" else logits
            target = scores.gather(1, label[:, None]).sum()
        (gradient,) = torch.autograd.grad(target, x)
        prediction = Prediction(
            prediction.native.detach(), prediction.model_output.detach(), prediction.pred_original_sample.detach()
        )
        return Evidence(gradient, logits.detach(), prediction)

    def amount(self, times: Times) -> float:
        """``guidance_scale * weight_t``, 0 outside the interval."""
        if self.interval is not None and not self.interval[0] <= times.timestep < self.interval[1]:
            return 0.0
        weights: dict[Weight, float] = {
            "one": 1.0,
            "sigma": times.sigma_step,
            "variance": times.sigma_step**2,
        }
        return self.guidance_scale * weights[self.weight]


def _check_labels(label: Tensor, classes: int) -> None:
    """Before the first gather: on CUDA an index out of range would end the process's context."""
    low, high = int(label.min()), int(label.max())
    if low < 0 or high >= classes:
        raise GradscopeError(f"labels: the classifier has classes 0 to {classes - 1}, got {low if low < 0 else high}")
