"""What cannot be stepped exactly is refused, by name and setting."""

from math import isfinite
from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler, PNDMScheduler

from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.models.schedulers import refuse_class, setting
from gradscope.sampling.process.level import Level, is_flow
from gradscope.sampling.process.posterior import VARIANCE_TYPES
from gradscope.sampling.process.responses import Response

_CLOSE = 100
"""Range of the search for a number of steps that fits, around the requested one."""

_RUNGE_KUTTA = 4
"""Number of steps that PNDM takes by Runge-Kutta's method before those with memory."""
_WITHOUT_SAMPLE = ("PNDM", "EDM", "EulerAncestral", "KDPM2")
"""Beginnings of the names of schedulers whose step knows no prediction of x_0."""


def refuse_inexact(scheduler: Any) -> None:
    """Raise GradscopeError, with the setting, for a scheduler whose steps cannot be computed exactly."""
    refuse_class(scheduler)
    config, name = scheduler.config, type(scheduler).__name__
    if setting(scheduler, "thresholding"):
        raise GradscopeError(f"scheduler: {name} with thresholding=True is not supported; set it to False")
    if isinstance(scheduler, DDPMScheduler) and config.variance_type not in VARIANCE_TYPES:
        raise GradscopeError(
            f"scheduler: variance_type {config.variance_type!r} is not supported; "
            f"{one_of(config.variance_type, VARIANCE_TYPES)}"
        )
    for key, why in (("use_dynamic_shifting", "its shift depends on the image's size"), ("solver_p", "nested solvers")):
        if setting(scheduler, key):
            raise GradscopeError(f"scheduler: {name} with {key} is not supported ({why}); leave it out")
    if is_flow(scheduler):
        predicted = setting(scheduler, "prediction_type", "flow_prediction")
        if predicted != "flow_prediction":
            raise GradscopeError(
                f"scheduler: prediction_type {predicted!r} with use_flow_sigmas is not supported; set it "
                "to 'flow_prediction'"
            )
        return
    known = ("epsilon", "v_prediction") if name.startswith(_WITHOUT_SAMPLE) else ("epsilon", "sample", "v_prediction")
    if config.prediction_type not in known:
        raise GradscopeError(
            f"scheduler: prediction_type {config.prediction_type!r} is not supported; "
            f"{one_of(config.prediction_type, known)}"
        )
    alphas = getattr(scheduler, "alphas_cumprod", None)
    if alphas is not None and len(alphas) != config.num_train_timesteps:
        raise GradscopeError(
            f"scheduler: num_train_timesteps is {config.num_train_timesteps}, but there are {len(alphas)} betas; they "
            "must agree (trained_betas)"
        )


def refuse_options(scheduler: Any, eta: Any, use_clipped_model_output: bool) -> dict[str, Any]:
    """The options of the scheduler's step, checked: those of DDIM, none for others."""
    name = type(scheduler).__name__
    if isinstance(eta, bool) or not isinstance(eta, int | float) or not 0 <= eta <= 1:
        raise GradscopeError(f"sampling.eta: must lie in [0, 1], got {eta!r}")
    if isinstance(scheduler, DDIMScheduler):
        return {"eta": float(eta), "use_clipped_model_output": bool(use_clipped_model_output)}
    for key, value in (("eta", eta), ("use_clipped_model_output", use_clipped_model_output)):
        if value:
            raise GradscopeError(f"sampling.{key}: is an option of DDIM's step; {name} takes none, got {value!r}")
    return {}


def refuse_levels(scheduler: Any, levels: list[Level], prediction_type: str) -> None:
    """Raise GradscopeError unless every evaluation has noise, and a signal where an epsilon prediction needs one."""
    timesteps = scheduler.timesteps.tolist()
    if not hasattr(scheduler, "sigmas") and isinstance(scheduler, DDPMScheduler | DDIMScheduler):
        _refuse_betas(scheduler)
    for t, level in zip(timesteps, levels, strict=True):
        if not (isfinite(level.noise) and isfinite(level.signal) and level.noise > 0 and level.signal >= 0):
            raise GradscopeError(
                f"scheduler: at timestep {t:g} x_t is {level.signal:g} x_0 + {level.noise:g} noise; noise must be "
                "above 0 and finite, so that there is something to predict"
            )
        if level.signal == 0 and prediction_type == "epsilon":
            raise GradscopeError(
                f"scheduler: at timestep {t:g} alphas_cumprod is 0, where an epsilon prediction does not determine x0; "
                "use prediction_type v_prediction or sample, timestep_spacing leading (which does not visit this "
                "timestep), or rescale_betas_zero_snr False"
            )


def refuse_responses(scheduler: Any, found: list[Response], options: dict[str, Any]) -> None:
    """Raise GradscopeError if a step divides by zero, as that of some solvers to noise 0 does."""
    for t, response in zip(scheduler.timesteps.tolist(), found, strict=True):
        if not (isfinite(response.prediction) and isfinite(response.noise)):
            to_zero = scheduler.config.get("final_sigmas_type") == "zero"
            advice = "set final_sigmas_type to 'sigma_min'" if to_zero else "take other settings"
            advice = "take sampling.eta below 1" if options.get("eta") == 1 else advice
            raise GradscopeError(
                f"scheduler: with these settings the step of {type(scheduler).__name__} at timestep {t:g} is not "
                f"finite; {advice}"
            )


def _refuse_betas(scheduler: Any) -> None:
    """Raise GradscopeError unless alphas_cumprod fall over the timesteps, from below 1 to at least 0.

    At 1 there is no noise to predict, and a step without a fall has no posterior.
    """
    taken = scheduler.timesteps.tolist()
    values = [1.0, *(float(scheduler.alphas_cumprod[t]) for t in reversed(taken))]
    for t, before, now in zip(reversed(taken), values, values[1:], strict=False):
        if not 0 <= now < before <= 1:
            raise GradscopeError(
                f"scheduler: alphas_cumprod must fall from below 1 to at least 0; at timestep {t} it is {now:g}, "
                f"after {before:g} (betas must lie between 0 and 1)"
            )


def set_timesteps(scheduler: Any, count: int) -> None:
    """Let the scheduler space `count` steps; refuse another number of steps and timesteps outside training's range."""
    last = scheduler.config.num_train_timesteps
    where = "sampling.num_inference_steps"
    count = whole_number(count, where, least=1)
    if count > last:
        raise GradscopeError(f"{where}: at most the scheduler's {last}, got {count}")
    if not (fault := _fault(scheduler, count)):
        return
    near = (count + sign * k for k in range(1, _CLOSE) for sign in (-1, 1))
    fits = next((n for n in near if 1 <= n <= last and not _fault(scheduler, n)), None)
    advice = f"; {fits} steps fit" if fits else ""
    spacing = f"timestep_spacing {setting(scheduler, 'timestep_spacing', 'none')!r}"
    offset = setting(scheduler, "steps_offset")
    spacing += f" and steps_offset {offset}" if offset else ""
    raise GradscopeError(f"{where}: with {spacing}, {count} steps {fault}{advice}")


def _fault(scheduler: Any, count: int) -> str:
    """The fault of the scheduler's timesteps for `count` steps, in words; empty if there is none."""
    if isinstance(scheduler, PNDMScheduler) and not scheduler.config.skip_prk_steps and count < _RUNGE_KUTTA:
        return "are too few for its Runge-Kutta steps"
    try:
        scheduler.set_timesteps(count)
    except Exception as error:  # diffusers checks little, so that anything may fail
        raise GradscopeError(f"scheduler: it cannot space {count} steps: {' '.join(str(error).split())}") from error
    timesteps, last = scheduler.timesteps.tolist(), scheduler.config.num_train_timesteps
    if hasattr(scheduler, "sigmas"):
        return ""
    outside = [t for t in timesteps if not 0 <= t < last]
    if outside:
        return f"lead to timestep {outside[-1]}, outside [0, {last})"
    if not isinstance(scheduler, DDPMScheduler | DDIMScheduler):
        return ""
    if len(timesteps) != count:
        return f"give {len(timesteps)} timesteps"
    if any(later >= earlier for earlier, later in zip(timesteps, timesteps[1:], strict=False)):
        return "do not descend"
    return ""
