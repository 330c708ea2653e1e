"""The noise level of a step of any diffusers scheduler, and its predictions as epsilon and x0-hat.

A process is ``x_t = signal x_0 + noise epsilon``. Schedulers say it in three ways: by alphas_cumprod (DDPM, DDIM,
PNDM), by sigma = noise / signal with x_t scaled to unit variance (DPM-Solver, UniPC, DEIS), or by sigma with signal 1
(Euler, Heun). In flow matching signal is 1 - sigma, and the prediction is the velocity epsilon - x_0.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradscope.errors import GradscopeError, one_of

PREDICTIONS = ("epsilon", "sample", "v_prediction", "flow_prediction")
_PRECONDITIONED = ("EDM", "Consistency", "CMStochastic", "LCM", "TCD")


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

    def epsilon(self, prediction: Tensor, x_t: Tensor, kind: str) -> Tensor:
        """The predicted noise; the tensors have one shape, ``(n, *sample)``. Undefined where noise is 0."""
        if kind == "epsilon":
            return prediction
        return (x_t - self.signal * self.original(prediction, x_t, kind)) / self.noise

    def original(self, prediction: Tensor, x_t: Tensor, kind: str) -> Tensor:
        """x0-hat, not clamped. An epsilon prediction does not determine it where signal is 0."""
        match kind:
            case "epsilon":
                return (x_t - self.noise * prediction) / self.signal
            case "sample":
                return prediction
            case "v_prediction":
                scale = (self.signal**2 + self.noise**2) ** 0.5
                return (self.signal * x_t / scale - self.noise * prediction) / scale
            case "flow_prediction":  # velocity = epsilon - x_0
                return (x_t - self.noise * prediction) / (self.signal + self.noise)
        raise GradscopeError(f"prediction_type: got {kind!r}; {one_of(kind, PREDICTIONS)}")


def prediction_of(scheduler: Any) -> str | None:
    """What the denoiser predicts, by the scheduler; None if it does not say."""
    if "FlowMatch" in type(scheduler).__name__:
        return "flow_prediction"
    said = getattr(getattr(scheduler, "config", None), "prediction_type", None)
    if said is None:  # guided-diffusion's process
        mean = getattr(getattr(scheduler, "model_mean_type", None), "name", None)
        said = {"EPSILON": "epsilon", "START_X": "sample"}.get(str(mean))
    return said if said in PREDICTIONS else None


def is_preconditioned(scheduler: Any) -> bool:
    """Whether a scheduler's predictions are of a kind that is not converted here."""
    name = type(scheduler).__name__
    return name.startswith(_PRECONDITIONED) or "Inverse" in name


def level_at(scheduler: Any, timestep: float, index: int | None) -> Level | None:
    """The noise level at a step; `index` counts the scheduler's steps. None if the scheduler does not say."""
    sigmas = getattr(scheduler, "sigmas", None)
    if index is not None and sigmas is not None and index < len(sigmas):
        return level_of_sigma(scheduler, float(sigmas[index]))
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is None:
        return None
    return level_of_alphas(alphas, timestep / time_factor(scheduler), getattr(scheduler, "timestep_map", None))


def time_factor(scheduler: Any) -> float:
    """Factor of the times that the denoiser gets; guided-diffusion's `rescale_timesteps` maps them to 1,000."""
    if not getattr(scheduler, "rescale_timesteps", False):
        return 1.0
    return 1000.0 / float(getattr(scheduler, "original_num_steps", scheduler.num_timesteps))


def level_of_sigma(scheduler: Any, sigma: float) -> Level:
    """The noise level for a sigma of a scheduler."""
    config = getattr(scheduler, "config", None)
    if "FlowMatch" in type(scheduler).__name__ or getattr(config, "use_flow_sigmas", False):
        return Level(1 - sigma, sigma)
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        signal = (1 + sigma**2) ** -0.5
        return Level(signal, sigma * signal)
    return Level(1.0, sigma)


def level_by_input(scheduler: Any, level: Level, x_t: Tensor, scaled: Tensor) -> Level:
    """Correct a level of a process with signal 1 by the denoiser's input, ``x_t / sqrt(1 + sigma^2)``.

    Second-order solvers (KDPM2) evaluate the denoiser at a sigma between those of their table.
    """
    if level.signal != 1 or scaled.shape != x_t.shape:
        return level
    ratio = float(x_t.double().norm() / scaled.double().norm().clamp(min=1e-30))
    if ratio <= 1 + 1e-6:
        return level  # the input is not scaled
    sigma = (ratio**2 - 1) ** 0.5
    if abs(sigma - level.noise) <= 0.01 * sigma:
        return level
    known = [float(s) for name in ("sigmas", "sigmas_interpol") for s in getattr(scheduler, name, ())]
    return Level(1.0, min(known, key=lambda s: abs(s - sigma), default=sigma))


def level_of_alphas(alphas: Any, timestep: float, timestep_map: Any = None) -> Level | None:
    """The noise level at a timestep, from a table of alphas_cumprod; None outside of the table."""
    row = round(timestep)
    if timestep_map is not None:  # guided-diffusion's respaced process: its table counts the spaced steps
        row = list(timestep_map).index(row) if row in timestep_map else -1
    if not 0 <= row < len(alphas):
        return None
    share = float(alphas[row])
    return Level(share**0.5, (1 - share) ** 0.5)
