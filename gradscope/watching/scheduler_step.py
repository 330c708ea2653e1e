"""Replace `step` on a scheduler, and take a step again without guidance."""

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradscope.watching.calls import copied, tensor_of

_PREDICTION = ("model_output", "noise_pred", "pred", "output")
_SAMPLE = ("sample", "x_t", "x", "latents")


@dataclass
class Taken:
    """One call of a scheduler's `step`."""

    prediction: Tensor
    """What the scheduler got from the loop, guided; ``(n, *sample)``."""
    timestep: Any
    x_t: Tensor
    arguments: inspect.BoundArguments
    before: Any
    """A copy of the scheduler from before the step; None if it was not needed."""
    random: Any
    """State of the generators before the step."""
    prev_sample: Tensor | None = None
    index: int | None = None
    """Number of the step by the scheduler, if it counts."""


@contextmanager
def replaced_step(
    scheduler: Any, before: Callable[[inspect.BoundArguments], Any], after: Callable[[Any, Any], None]
) -> Iterator[None]:
    """Call ``before(arguments)`` and ``after(its result, the step's result)`` around each step of one scheduler.

    `step` is replaced on the instance, and keeps its signature: pipelines inspect it. On leaving, the instance is as it
    was.
    """
    original = scheduler.step
    own = scheduler.__dict__.get("step")
    signature = inspect.signature(original)

    @functools.wraps(original)
    def step(*args: Any, **kwargs: Any) -> Any:
        try:
            arguments = signature.bind(*args, **kwargs)
        except TypeError:
            return original(*args, **kwargs)  # raises the loop's own error
        seen = before(arguments)
        result = original(*args, **kwargs)
        after(seen, result)
        return result

    scheduler.__dict__["step"] = step
    try:
        yield
    finally:
        if scheduler.__dict__.get("step") is step:
            if own is None:
                del scheduler.__dict__["step"]
            else:
                scheduler.__dict__["step"] = own


def taken(arguments: inspect.BoundArguments) -> Taken | None:
    """The tensors of a call of `step`; None if it has none."""
    given = arguments.arguments
    values = [value for value in given.values() if isinstance(value, Tensor) and value.is_floating_point()]
    prediction = next((given[name] for name in _PREDICTION if isinstance(given.get(name), Tensor)), None)
    sample = next((given[name] for name in _SAMPLE if isinstance(given.get(name), Tensor)), None)
    if prediction is None and values:
        prediction = values[0]
    if sample is None and prediction is not None:
        sample = next((v for v in values[1:] if v.shape[1:] == prediction.shape[1:]), None)
    if prediction is None or sample is None:
        return None
    return Taken(copied(prediction), given.get("timestep"), copied(sample), arguments, None, None)


def remember(scheduler: Any, seen: Taken) -> None:
    """Keep what `without_guidance` needs: the scheduler's state, and that of the generators."""
    seen.before = _copy(scheduler)
    seen.random = _random_state(seen)


def without_guidance(seen: Taken, unguided: Tensor) -> Tensor | None:
    """prev_sample of the same step, with the same noise, for another prediction; None if the step gives no tensor."""
    arguments = copy.copy(seen.arguments)
    arguments.arguments = dict(seen.arguments.arguments)
    for name, value in arguments.arguments.items():
        if isinstance(value, Tensor) and value.shape == seen.prediction.shape and name in _PREDICTION:
            arguments.arguments[name] = unguided.to(value.dtype)
        elif name in _SAMPLE and isinstance(value, Tensor):
            arguments.arguments[name] = seen.x_t.clone()
    with _same_noise(seen, arguments):
        result = type(seen.before).step(seen.before, *arguments.args, **arguments.kwargs)
    found = tensor_of(result)
    return None if found is None else found.detach()


def _state(value: Any) -> Any:
    """A copy of what a step may change: tensors, also those in lists, and schedulers inside a scheduler."""
    if isinstance(value, Tensor):
        return copied(value)
    if isinstance(value, list):
        return [_state(part) for part in value]
    return _copy(value) if callable(getattr(value, "step", None)) else value


def _copy(scheduler: Any) -> Any:
    made = copy.copy(scheduler)
    made.__dict__ = {key: _state(value) for key, value in scheduler.__dict__.items() if key != "step"}
    return made


def _random_state(seen: Taken) -> Any:
    generator = seen.arguments.arguments.get("generator")
    if generator is None:
        device = seen.x_t.device
        return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    many = generator if isinstance(generator, list) else [generator]
    return [one.get_state() for one in many]


@contextmanager
def _same_noise(seen: Taken, arguments: inspect.BoundArguments) -> Iterator[None]:
    """Let a step draw the noise that the original drew, and leave every generator as it is."""
    generator = arguments.arguments.get("generator")
    if generator is None:
        device = seen.x_t.device
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            torch.set_rng_state(seen.random[0])
            if seen.random[1] is not None:
                torch.cuda.set_rng_state(seen.random[1], device)
            yield
        return
    many = generator if isinstance(generator, list) else [generator]
    copies = []
    for one, state in zip(many, seen.random, strict=True):
        clone = torch.Generator(one.device)
        clone.set_state(state)
        copies.append(clone)
    arguments.arguments["generator"] = copies if isinstance(generator, list) else copies[0]
    yield
