"""The diffusers schedulers that gradscope treats exactly, and their settings."""

import inspect
import json
from typing import Any

from diffusers import DDIMScheduler, DDPMScheduler

from gradscope.errors import GradscopeError

SCHEDULERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler}
_OWN = ("step", "_get_variance", "previous_timestep")
"""Methods of a scheduler whose arithmetic `gradscope.sampling.process` repeats."""


def configuration_of(scheduler: Any) -> dict[str, Any]:
    """Name and settings of a scheduler's class, without the settings that other classes left in its configuration.

    Examples
    --------
    >>> configuration_of(DDPMScheduler())["beta_schedule"]
    'linear'
    """
    known = inspect.signature(type(scheduler).__init__).parameters
    settings = {key: value for key, value in scheduler.config.items() if key in known}
    plain = json.loads(json.dumps(settings, default=lambda array: array.tolist()))
    return {"class": type(scheduler).__name__} | plain


def refuse_class(scheduler: Any) -> None:
    """Raise GradscopeError unless a scheduler is diffusers' DDPM or DDIM, or a subclass that takes their steps."""
    name = type(scheduler).__name__
    base = next((kind for kind in SCHEDULERS.values() if isinstance(scheduler, kind)), None)
    if base is None:
        raise GradscopeError(f"scheduler: {name} cannot be treated exactly; one of: DDPMScheduler, DDIMScheduler")
    changed = [method for method in _OWN if getattr(type(scheduler), method, None) is not getattr(base, method, None)]
    if changed:
        raise GradscopeError(
            f"scheduler: {name} changes {base.__name__}'s {', '.join(changed)}, so it cannot be treated exactly; one "
            "of: DDPMScheduler, DDIMScheduler"
        )
