"""The two predictions of one step, and the arithmetic between them and the gradient.

With x_t = signal x_0 + noise epsilon, each type of prediction is affine in x_t and x_0, so P = a x_t + b x_0:

=================  ===================================  ==============================
prediction_type    P                                    b
=================  ===================================  ==============================
sample             x_0                                  1
epsilon            epsilon                              -signal / noise
v_prediction       signal epsilon - noise x_0           -(signal^2 + noise^2) / noise
                   (arXiv 2202.00512)
flow_prediction    epsilon - x_0 (arXiv 2403.03206)     -(signal + noise) / noise
=================  ===================================  ==============================

At a given x_t a difference of two predictions is therefore b times the difference in x_0, and the gradient is
signal / noise^2 times the latter: one factor leads from a gradient to a difference in any type.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from torch import Tensor

from gradscope.stabilizers.checks import require_positive

PredictionType = Literal["epsilon", "sample", "v_prediction", "flow_prediction"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """Conditional and unconditional prediction at one x_t.

    Parameters
    ----------
    conditional, unconditional
        Predictions of equal shape, ``(n, ...)``.
    guidance_scale
        w in u + w (c - u): 1 gives the conditional prediction. Finite and not 0, where no update has an effect.
    signal, noise
        Factors in x_t = signal x_0 + noise epsilon; signal at least 0, noise above 0.
    step
        Number of the step, from 0.
    prediction_type
        What is predicted, in diffusers' words: ``epsilon``, ``sample`` (x_0), ``v_prediction`` or ``flow_prediction``.

    Raises
    ------
    ValueError
        The shapes differ, or a number or the type is out of range.

    Examples
    --------
    >>> import torch
    >>> at = Predictions(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), 3.0, signal=0.6, noise=0.8)
    >>> at.gradient, at.guided(at.difference)
    (tensor([[-1.2500,  1.2500]]), tensor([[ 4., -2.]]))
    """

    conditional: Tensor
    unconditional: Tensor
    guidance_scale: float
    signal: float
    noise: float
    step: int = 0
    prediction_type: PredictionType = "epsilon"

    def __post_init__(self) -> None:
        if self.conditional.shape != self.unconditional.shape:
            shapes = f"{tuple(self.conditional.shape)} and {tuple(self.unconditional.shape)}"
            raise ValueError(f"conditional and unconditional must have one shape, got {shapes}")
        if not math.isfinite(self.guidance_scale) or self.guidance_scale == 0:
            raise ValueError(f"guidance_scale must be finite and not 0, got {self.guidance_scale}")
        if not (math.isfinite(self.signal) and self.signal >= 0):
            raise ValueError(f"signal must be finite and 0 or above, got {self.signal}")
        require_positive("noise", self.noise)
        if self.step < 0:
            raise ValueError(f"step must be 0 or above, got {self.step}")
        _require_type(self.prediction_type)

    @property
    def sigma(self) -> float:
        """Noise level, noise / signal; infinite at signal 0."""
        return self.noise / self.signal if self.signal else math.inf

    @property
    def difference(self) -> Tensor:
        """Conditional minus unconditional prediction, ``(n, ...)``."""
        return self.conditional - self.unconditional

    @property
    def per_gradient(self) -> float:
        """Difference of predictions per unit of gradient; ``-noise`` for epsilon, ``noise**2 / signal`` for sample.

        Raises
        ------
        ValueError
            At signal 0, where x_t says nothing of x_0: predictions may differ and the gradient is 0.
        """
        if self.signal == 0:
            raise ValueError("at signal 0 a difference of predictions has no gradient; use update_difference")
        if self.prediction_type == "epsilon":  # the product below is the same but for rounding
            return -self.noise
        return self._affine(self.prediction_type)[1] * self.noise**2 / self.signal

    @property
    def gradient(self) -> Tensor:
        """Gradient of log p(condition given x_t), ``(n, ...)``. It raises at signal 0, as `per_gradient` does."""
        return self.difference / self.per_gradient

    def guided(self, difference: Tensor) -> Tensor:
        """The guided prediction, u + w difference, ``(n, ...)``."""
        return self.unconditional + self.guidance_scale * difference

    def to(self, prediction_type: PredictionType, x_t: Tensor) -> Self:
        """The same predictions at x_t, ``(n, ...)``, as another type.

        Raises
        ------
        ValueError
            The type is unknown, or the predictions are of epsilon at signal 0, which say nothing of x_0.
        """
        _require_type(prediction_type)
        a, b = self._affine(self.prediction_type)
        if b == 0:
            raise ValueError("at signal 0 a prediction of epsilon does not determine another type")
        to_a, to_b = self._affine(prediction_type)
        ratio = to_b / b
        conditional, unconditional = (
            ratio * prediction + (to_a - a * ratio) * x_t for prediction in (self.conditional, self.unconditional)
        )
        return replace(self, conditional=conditional, unconditional=unconditional, prediction_type=prediction_type)

    def _affine(self, prediction_type: PredictionType) -> tuple[float, float]:
        """A and b of P = a x_t + b x_0."""
        signal, noise = self.signal, self.noise
        match prediction_type:
            case "sample":
                return 0.0, 1.0
            case "epsilon":
                return 1 / noise, -signal / noise
            case "v_prediction":
                return signal / noise, -(signal**2 + noise**2) / noise
            case "flow_prediction":
                return 1 / noise, -(signal + noise) / noise


def _require_type(prediction_type: str) -> None:
    possible = get_args(PredictionType)
    if prediction_type not in possible:
        raise ValueError(f"prediction_type must be one of {', '.join(possible)}, got {prediction_type!r}")
