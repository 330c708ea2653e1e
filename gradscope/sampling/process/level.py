"""The noise level of one evaluation of the denoiser, and its predictions as epsilon and x0-hat.

A process is ``x_t = signal x_0 + noise epsilon``. Schedulers say it in three ways: by alphas_cumprod (DDPM, DDIM,
PNDM), by sigma = noise / signal with x_t scaled to unit variance (DPM-Solver, UniPC, DEIS), or by sigma with signal 1
(Euler, Heun, EDM). In flow matching signal is 1 - sigma, and the prediction is the velocity epsilon - x_0.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradscope.errors import GradscopeError, one_of
from gradscope.models.schedulers import setting

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")

_NO_SIGNAL = 2e-6
"""Signal over noise that stands for none: UniPC takes a flow's sigma of 1 - 1e-6 in place of 1."""


@dataclass(frozen=True)
class Level:
    """Noise level of one evaluation of the denoiser."""

    signal: float
    """Factor of x_0 in x_t."""
    noise: float
    """Factor of epsilon in x_t."""

    @property
    def alphas_cumprod(self) -> float:
        """Share of signal, ``signal^2 / (signal^2 + noise^2)``."""
        return self.signal**2 / (self.signal**2 + self.noise**2)

    @property
    def scale(self) -> float:
        """Standard deviation of x_t for data of unit variance, ``sqrt(signal^2 + noise^2)``."""
        return float((self.signal**2 + self.noise**2) ** 0.5)

    def epsilon(self, prediction: Tensor, x_t: Tensor, kind: str) -> Tensor:
        """The predicted noise; the tensors have one shape, ``(n, *sample)``. Undefined where noise is 0."""
        match kind:
            case "epsilon":
                return prediction
            case "v_prediction":
                return (self.signal * prediction + self.noise * x_t / self.scale) / self.scale
            case "flow_prediction":
                return (x_t + self.signal * prediction) / (self.signal + self.noise)
        return (x_t - self.signal * self.original(prediction, x_t, kind)) / self.noise

    def original(self, prediction: Tensor, x_t: Tensor, kind: str) -> Tensor:
        """x0-hat, not clamped. An epsilon prediction does not determine it where signal is 0."""
        match kind:
            case "epsilon":
                return (x_t - self.noise * prediction) / self.signal
            case "sample":
                return prediction
            case "v_prediction":
                return (self.signal * x_t / self.scale - self.noise * prediction) / self.scale
            case "flow_prediction":  # velocity = epsilon - x_0
                return (x_t - self.noise * prediction) / (self.signal + self.noise)
        raise GradscopeError(f"prediction_type: got {kind!r}; {one_of(kind, PREDICTIONS)}")

    def prediction(self, x_0: Tensor, epsilon: Tensor, kind: str) -> Tensor:
        """The prediction that says x_0 and epsilon, which together make x_t."""
        match kind:
            case "epsilon":
                return epsilon
            case "sample":
                return x_0
            case "v_prediction":
                return (self.signal * epsilon - self.noise * x_0) / self.scale
        return epsilon - x_0

    def change(self, kind: str) -> float | None:
        """Change of a prediction if the score of x_t gains 1; None where there is no signal, which leaves it undefined.

        The score is ``-epsilon / noise`` (arXiv 2105.05233): epsilon loses ``noise``, so x0-hat gains
        ``noise^2 / signal``.
        """
        if self.signal < _NO_SIGNAL * self.noise:
            return None
        match kind:
            case "epsilon":
                return -self.noise
            case "sample":
                return self.noise**2 / self.signal
            case "v_prediction":
                return -self.noise * self.scale / self.signal
        return -self.noise * (self.signal + self.noise) / self.signal


def is_flow(scheduler: Any) -> bool:
    """Whether a scheduler's process is x_t = (1 - sigma) x_0 + sigma epsilon."""
    return "FlowMatch" in type(scheduler).__name__ or bool(setting(scheduler, "use_flow_sigmas"))


def level_of_sigma(scheduler: Any, sigma: float) -> Level:
    """The noise level for a sigma of a scheduler."""
    if is_flow(scheduler):
        return Level(1 - sigma, sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t") and not type(scheduler).__name__.startswith("EDM"):
        signal = (1 + sigma**2) ** -0.5
        return Level(signal, sigma * signal)
    return Level(1.0, sigma)


def posterior_sigma(now: Level, following: Level) -> float:
    """Standard deviation of the posterior of the following x given x_t and x_0 (equation 7 of arXiv 2006.11239).

    Any process is a DDPM process times a factor. 0 where the level does not fall.
    """
    before, share = following.alphas_cumprod, now.alphas_cumprod
    if not share < before:
        return 0.0
    return float(((1 - share / before) * (1 - before) / (1 - share)) ** 0.5 * following.scale)
