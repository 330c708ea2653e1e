"""The diffusers schedulers that gradscope treats exactly, and their settings."""

import inspect
import json
from typing import Any, Literal, get_args, get_origin, get_type_hints

import diffusers

from gradscope.errors import GradscopeError, one_of

SCHEDULERS = {
    "ddpm": diffusers.DDPMScheduler,
    "ddim": diffusers.DDIMScheduler,
    "pndm": diffusers.PNDMScheduler,
    "dpm_solver_multistep": diffusers.DPMSolverMultistepScheduler,
    "dpm_solver_singlestep": diffusers.DPMSolverSinglestepScheduler,
    "unipc_multistep": diffusers.UniPCMultistepScheduler,
    "deis_multistep": diffusers.DEISMultistepScheduler,
    "sa_solver": diffusers.SASolverScheduler,
    "euler": diffusers.EulerDiscreteScheduler,
    "euler_ancestral": diffusers.EulerAncestralDiscreteScheduler,
    "heun": diffusers.HeunDiscreteScheduler,
    "lms": diffusers.LMSDiscreteScheduler,
    "kdpm2": diffusers.KDPM2DiscreteScheduler,
    "kdpm2_ancestral": diffusers.KDPM2AncestralDiscreteScheduler,
    "edm_euler": diffusers.EDMEulerScheduler,
    "edm_dpm_solver_multistep": diffusers.EDMDPMSolverMultistepScheduler,
    "flow_match_euler": diffusers.FlowMatchEulerDiscreteScheduler,
    "flow_match_heun": diffusers.FlowMatchHeunDiscreteScheduler,
}
"""The schedulers whose step is affine in prediction, sample and noise, by their name in a configuration."""
_FREE = {"__init__", "set_timesteps", "add_noise", "scale_noise"}
"""Methods that a subclass may change: no step depends on how they are written."""


def make_scheduler(name: str, options: dict[str, Any], trained: Any, where: str = "sampling.scheduler") -> Any:
    """A scheduler for the noise that a denoiser was trained with.

    Parameters
    ----------
    name
        A key of `SCHEDULERS`.
    options
        Arguments of the scheduler's class, in place of those of `trained`.
    trained
        The scheduler that comes with the denoiser.
    where
        The configuration's key, for errors.

    Raises
    ------
    GradscopeError
        The scheduler does not fit the denoiser's process, or does not know an option or its value.

    Examples
    --------
    >>> made = make_scheduler("dpm_solver_multistep", {"solver_order": 3}, diffusers.DDPMScheduler())
    >>> type(made).__name__, made.config.solver_order
    ('DPMSolverMultistepScheduler', 3)
    """
    if name not in SCHEDULERS:
        raise GradscopeError(f"{where}: got {name!r}; {one_of(name, SCHEDULERS)}")
    kind = SCHEDULERS[name]
    known = [key for key in inspect.signature(kind).parameters if key not in ("self", "args", "kwargs")]
    for key in options:
        if key not in known:
            raise GradscopeError(f"{where}.{name}: {kind.__name__} has no option {key!r}; {one_of(key, known)}")
        _check_option(kind, key, options[key], f"{where}.{name}.{key}")
    if "clip_sample" in known and "clip_sample" not in trained.config:
        options = {"clip_sample": False} | options  # it does not clamp, and diffusers' default would
    try:
        made = kind.from_config(trained.config, **options)
    except Exception as error:  # diffusers checks little, so that anything may fail
        raise GradscopeError(f"{where}.{name}: diffusers refused it: {' '.join(str(error).split())}") from error
    if process_of(made) != (own := process_of(trained)):
        fitting = [key for key, other in SCHEDULERS.items() if process_of(other()) == own]
        raise GradscopeError(
            f"{where}: {name} runs {process_of(made)}, but the denoiser comes with {type(trained).__name__}, {own}; "
            f"one of: {', '.join(fitting)}"
        )
    return made


def _check_option(kind: type, key: str, value: Any, where: str) -> None:
    """Raise GradscopeError unless an option has the type of its default, and is one of the values that are named.

    The default says more than the annotation, which is wrong for some options of diffusers.
    """
    default = inspect.signature(kind).parameters[key].default
    if isinstance(default, bool | int | float | str) and value is not None:
        wanted = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[type(default)]
        accepted = (int, float) if type(default) is float else type(default)
        if not isinstance(value, accepted) or (isinstance(value, bool) and type(default) is not bool):
            raise GradscopeError(f"{where}: must be {wanted}, got {value!r:.80}")
    hint = get_type_hints(kind.__init__).get(key)  # type: ignore[misc]
    named = get_args(hint) if get_origin(hint) is Literal else ()
    named = (1, 2, 3) if key == "solver_order" else named
    if named and value not in named:
        raise GradscopeError(f"{where}: got {value!r:.80}; {one_of(str(value), map(str, named))}")


def process_of(scheduler: Any) -> str:
    """The kind of noise that a denoiser must be trained with, in words."""
    name = type(scheduler).__name__
    if name.startswith("EDM"):
        return "EDM's preconditioned noise"
    return (
        "flow matching" if "FlowMatch" in name or setting(scheduler, "use_flow_sigmas") else "noise by alphas_cumprod"
    )


def setting(scheduler: Any, key: str, default: Any = None) -> Any:
    """A setting that the scheduler's class has; `default` for others, which other classes leave in a configuration.

    Examples
    --------
    >>> made = diffusers.EulerDiscreteScheduler.from_config(diffusers.DDPMScheduler(clip_sample=True).config)
    >>> made.config.clip_sample, setting(made, "clip_sample")
    (True, None)
    """
    config = getattr(scheduler, "config", None)
    makers = (vars(kind).get("__init__") for kind in type(scheduler).__mro__[:-1])
    known = any(key in inspect.signature(make).parameters for make in makers if inspect.isfunction(make))
    return getattr(config, key, default) if known else default


def configuration_of(scheduler: Any) -> dict[str, Any]:
    """Name and settings of a scheduler's class, without the settings that other classes left in its configuration.

    Examples
    --------
    >>> configuration_of(diffusers.DDPMScheduler())["beta_schedule"]
    'linear'
    """
    known = inspect.signature(type(scheduler).__init__).parameters
    settings = {key: value for key, value in scheduler.config.items() if key in known}
    plain = json.loads(json.dumps(settings, default=lambda array: array.tolist()))
    return {"class": type(scheduler).__name__} | plain


def refuse_class(scheduler: Any) -> None:
    """Raise GradscopeError unless a scheduler is one of `SCHEDULERS`, or a subclass that takes the same steps."""
    name = type(scheduler).__name__
    base = next((kind for kind in SCHEDULERS.values() if isinstance(scheduler, kind)), None)
    possible = ", ".join(kind.__name__ for kind in SCHEDULERS.values())
    if base is None:
        raise GradscopeError(f"scheduler: {name} cannot be treated exactly; one of: {possible}")
    methods = [key for key, value in vars(base).items() if callable(value) and key not in _FREE]
    changed = [key for key in methods if getattr(type(scheduler), key, None) is not getattr(base, key)]
    if changed:
        raise GradscopeError(
            f"scheduler: {name} changes {base.__name__}'s {', '.join(changed)}, so it cannot be treated exactly; one "
            f"of: {possible}"
        )
