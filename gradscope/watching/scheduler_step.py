"""Replace `step` on a scheduler, and take a step again without guidance."""

import copy
import functools
import inspect
import random
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradscope.sampling.process import Level
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
    before: Any = None
    """A copy of the scheduler from before the step; None if it cannot be copied."""
    random: Any = None
    """State of the generators before the step."""
    prev_sample: Tensor | None = None
    index: int | None = None
    """Number of the step by the scheduler, if it counts."""
    level: Level | None = None
    """Noise level, by the scheduler as it was at the step."""
    is_foreign: bool = False
    """Whether `step` was replaced on the scheduler by somebody else, or cannot be repeated."""


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
    step = _Step(scheduler, original, before, after)
    scheduler.__dict__["step"] = step
    try:
        yield
    finally:
        if scheduler.__dict__.get("step") is step:
            if own is None:
                del scheduler.__dict__["step"]
            else:
                scheduler.__dict__["step"] = own
        step.ended = True  # another watch may still call it


class _Step:
    """`step` of one scheduler while it is watched. A copy of the scheduler gets the step of its class."""

    def __init__(
        self,
        scheduler: Any,
        original: Callable[..., Any],
        before: Callable[[inspect.BoundArguments], Any],
        after: Callable[[Any, Any], None],
    ) -> None:
        functools.update_wrapper(self, original)
        self.__signature__ = inspect.signature(original)
        self._scheduler, self._original, self._before, self._after = scheduler, original, before, after
        self.ended = False

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            arguments = self.__signature__.bind(*args, **kwargs)
        except TypeError:
            return self._original(*args, **kwargs)  # raises the loop's own error
        if self.ended:
            return self._original(*args, **kwargs)
        seen = self._before(arguments)
        result = self._original(*args, **kwargs)
        self._after(seen, result)
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return step_of_class(memo.get(id(self._scheduler), self._scheduler))

    def __reduce__(self) -> Any:
        return step_of_class, (self._scheduler,)


def step_of_class(scheduler: Any) -> Callable[..., Any]:
    """The step that a scheduler's class defines."""
    return types.MethodType(type(scheduler).step, scheduler)


def taken(arguments: inspect.BoundArguments) -> Taken | None:
    """The tensors of a call of `step`; None if it has none."""
    given: dict[str, Any] = {}
    for name, value in arguments.arguments.items():
        kind = arguments.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            given |= value
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            given |= dict(zip(("model_output", "timestep", "sample"), value, strict=False))
        else:
            given[name] = value
    values = [value for value in given.values() if isinstance(value, Tensor) and value.is_floating_point()]
    prediction = next((given[name] for name in _PREDICTION if isinstance(given.get(name), Tensor)), None)
    sample = next((given[name] for name in _SAMPLE if isinstance(given.get(name), Tensor)), None)
    if prediction is None and values:
        prediction = values[0]
    if sample is None and prediction is not None:
        sample = next((v for v in values[1:] if v.shape[1:] == prediction.shape[1:]), None)
    if prediction is None or sample is None:
        return None
    foreign = "model_output" not in arguments.arguments
    return Taken(copied(prediction), given.get("timestep"), copied(sample), arguments, is_foreign=foreign)


def remember(scheduler: Any, seen: Taken) -> None:
    """Keep what `without_guidance` needs: the scheduler's state, and that of the generators."""
    seen.is_foreign |= not _is_of_class(scheduler.__dict__.get("step"))
    made = object.__new__(type(scheduler))
    try:
        made.__dict__.update(copy.deepcopy({k: v for k, v in scheduler.__dict__.items() if k != "step"}))
    except Exception:  # its state cannot be copied
        seen.is_foreign = True
    seen.before, seen.random = made, _random_state(seen)


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


def _is_of_class(step: Any) -> bool:
    """Whether only watches stand between a scheduler's step and that of its class."""
    while isinstance(step, _Step):
        step = step._original
    return isinstance(step, types.MethodType) and step.__func__ is getattr(type(step.__self__), "step", None)


def _random_state(seen: Taken) -> Any:
    generator = seen.arguments.arguments.get("generator")
    if generator is None:
        device = seen.x_t.device
        cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()  # noqa: NPY002
    many = generator if isinstance(generator, list) else [generator]
    return [one.get_state() for one in many]


@contextmanager
def _same_noise(seen: Taken, arguments: inspect.BoundArguments) -> Iterator[None]:
    """Let a step draw the noise that the original drew, and leave every generator as it is."""
    generator = arguments.arguments.get("generator")
    if generator is None:
        device, (cpu, cuda, numpy, python) = seen.x_t.device, seen.random
        now = np.random.get_state(), random.getstate()  # noqa: NPY002
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"):
            torch.set_rng_state(cpu)
            if cuda is not None:
                torch.cuda.set_rng_state(cuda, device)
            np.random.set_state(numpy)  # noqa: NPY002
            random.setstate(python)
            try:
                yield
            finally:
                np.random.set_state(now[0])  # noqa: NPY002
                random.setstate(now[1])
        return
    many = generator if isinstance(generator, list) else [generator]
    copies = []
    for one, state in zip(many, seen.random, strict=True):
        clone = torch.Generator(one.device)
        clone.set_state(state)
        copies.append(clone)
    arguments.arguments["generator"] = copies if isinstance(generator, list) else copies[0]
    yield
