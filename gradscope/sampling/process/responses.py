"""How a solver's step responds to a change of its prediction and to its noise.

A step of every scheduler here is affine in the prediction, the sample, the noise and the solver's memory, element by
element and with one factor for all elements. So one step from a zeroed sample and zeroed memory shows the factors
exactly: the response to a prediction of 1, less that to 0, and the response to the noise.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradscope.models.schedulers import setting

_KEPT = ("sample", "cur_sample", "last_sample")
"""Names under which diffusers' solvers keep a sample to step on from later."""


@dataclass(frozen=True)
class Response:
    """Factors of one step."""

    prediction: float
    """Change of prev_sample per unit of the prediction."""
    noise: float
    """Standard deviation of the noise that the step adds."""


def twin(scheduler: Any, shape: torch.Size, change: Callable[[Tensor], Tensor] = torch.clone) -> Any:
    """A copy of a scheduler whose memory can step on its own.

    Parameters
    ----------
    scheduler
        A diffusers scheduler.
    shape
        Shape of the samples; tensors of this shape are the solver's memory.
    change
        Applied to each of them.
    """
    made = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, list):
            setattr(made, name, [change(part) if _is_memory(part, shape) else part for part in value])
        elif _is_memory(value, shape):
            setattr(made, name, change(value))
    return made


def remembers(scheduler: Any, shape: torch.Size) -> bool:
    """Whether a scheduler holds earlier predictions or samples."""
    values = [part for value in vars(scheduler).values() for part in (value if isinstance(value, list) else [value])]
    return any(_is_memory(part, shape) for part in values)


def _is_memory(value: Any, shape: torch.Size) -> bool:
    return isinstance(value, Tensor) and value.shape == shape


def takes(scheduler: Any, name: str) -> bool:
    """Whether the scheduler's step has a parameter of this name."""
    return name in inspect.signature(scheduler.step).parameters


def responses(scheduler: Any, options: dict[str, Any]) -> tuple[list[Response], bool, bool]:
    """The responses of all steps, whether the solver has memory, and whether it steps on from samples that it kept.

    Parameters
    ----------
    scheduler
        A scheduler with its timesteps set. It is not changed.
    options
        Keyword arguments of its step.
    """
    at_zero = torch.zeros(2, 1, dtype=torch.float64)
    impulse = torch.tensor([[1.0], [0.0]], dtype=torch.float64)
    walk, found, has_memory = unclamped(twin(scheduler, at_zero.shape)), [], False
    for step, t in enumerate(scheduler.timesteps):
        seek(walk, step)
        walk.scale_model_input(at_zero, t) if hasattr(walk, "scale_model_input") else None
        generators = [torch.Generator().manual_seed(0) for _ in at_zero]
        noise = {"generator": generators} if takes(walk, "generator") else {}
        one, none = walk.step(impulse, t, at_zero, **options, **noise).prev_sample[:, 0].tolist()
        drawn = torch.randn(1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        found.append(Response(one - none, abs(none / float(drawn))))
        has_memory |= remembers(walk, at_zero.shape)
        walk = twin(walk, at_zero.shape, torch.zeros_like)
    return found, has_memory, any(hasattr(walk, name) for name in _KEPT)


def seek(scheduler: Any, step: int) -> None:
    """Let a scheduler that counts its steps stand at one of them; duplicate timesteps would mislead its own search."""
    if hasattr(scheduler, "_step_index"):
        scheduler._step_index = step


def unclamped(scheduler: Any) -> Any:
    """A copy of a scheduler, with the same memory, that does not clamp x0-hat."""
    made = copy.copy(scheduler)
    if setting(scheduler, "clip_sample"):
        made._internal_dict = type(scheduler.config)(dict(scheduler.config) | {"clip_sample": False})
    return made
