"""What any scheduler or process says of its noise level and of the denoiser's predictions."""

from typing import Any

from torch import Tensor

from gradscope.sampling.process import PREDICTIONS, Level, level_of_sigma

_PRECONDITIONED = ("EDM", "Consistency", "CMStochastic", "LCM", "TCD")


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
