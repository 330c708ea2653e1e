"""Energies that differ from the declared one in one respect: hooks change what its modules get or give."""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradscope.checking.calls import Energy, values
from gradscope.errors import GradscopeError
from gradscope.watching.calls import sample_of, tensor_of, time_of

_TIMES = ("timestep", "timesteps", "t", "time", "times", "sigma", "noise_labels", "noise_level")


@contextmanager
def output_as(module: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> Iterator[None]:
    """Within, the module gives ``change(output, its input)``."""

    def after(_: nn.Module, arguments: Any, named: Any, result: Any) -> Any:
        output, x = tensor_of(result), sample_of(arguments, named)
        if output is None or x is None:
            raise GradscopeError(f"{type(module).__name__} gave no tensor")
        return _replaced(result, output, change(output, x))

    handle = module.register_forward_hook(after, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _replaced(result: Any, old: Tensor, new: Tensor) -> Any:
    """A module's result with another tensor."""
    if isinstance(result, Tensor):
        return new
    if isinstance(result, tuple):
        return tuple(new if part is old else part for part in result)
    if isinstance(result, dict) and not hasattr(result, "sample"):
        return {name: new if part is old else part for name, part in result.items()}
    changed = copy.copy(result)
    for name, part in vars(result).items():
        if part is old:
            setattr(changed, name, new)
    return changed


@contextmanager
def input_as(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, the module gets ``change(input)``."""

    def before(_: nn.Module, arguments: Any, named: Any) -> Any:
        x = sample_of(arguments, named)
        if x is None:
            raise GradscopeError(f"{type(module).__name__} was called without samples")
        return _exchanged(arguments, named, x, change(x))

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def time_as(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Within, the module gets ``change(t)``."""

    def before(_: nn.Module, arguments: Any, named: Any) -> Any:
        x = sample_of(arguments, named)
        t = None if x is None else time_of(arguments, named, len(x))
        if t is None:
            raise GradscopeError(f"{type(module).__name__} takes no timestep")
        changed = change(t) if isinstance(t, Tensor) else type(t)(change(torch.as_tensor(t)).item())
        return _exchanged(arguments, named, t, changed)

    handle = module.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _exchanged(arguments: Sequence[Any], named: dict[str, Any], old: Any, new: Any) -> tuple[Any, Any]:
    return tuple(new if a is old else a for a in arguments), {k: new if v is old else v for k, v in named.items()}


def with_time(energy: Energy, module: nn.Module, change: Callable[[Tensor], Tensor]) -> Energy:
    """The energy, in which a module gets another timestep."""

    def changed(x: Tensor, t: Any) -> Any:
        with time_as(module, change):
            return energy(x, t)

    return changed


def with_input(energy: Energy, module: nn.Module, change: Callable[[Tensor, Tensor], Tensor]) -> Energy:
    """The energy, in which a module gets ``change(its input, x)``."""

    def changed(x: Tensor, t: Any) -> Any:
        with input_as(module, lambda given: change(given, x)):
            return energy(x, t)

    return changed


def of_output(energy: Energy, module: nn.Module, of: Callable[[Tensor], Tensor]) -> Energy:
    """Another function of a module's output, ``(n,)``, as the energy calls the module last."""

    def changed(x: Tensor, t: Any) -> Any:
        return of(captured(energy, module, x, t)[-1])

    return changed


def captured(energy: Energy, module: nn.Module, x: Tensor, t: Any) -> list[Tensor]:
    """The module's outputs while the energy is evaluated, with their graph.

    Raises
    ------
    GradscopeError
        The energy does not call it.
    """
    seen: list[Tensor] = []

    def keep(output: Tensor, _: Tensor) -> Tensor:
        seen.append(output)
        return output

    with output_as(module, keep):
        values(energy, x, t)
    if not seen:
        raise GradscopeError(f"the energy does not call this {type(module).__name__}")
    return seen


def replayed(energy: Energy, module: nn.Module, outputs: Sequence[Tensor]) -> Energy:
    """The energy, in which a module gives fixed outputs, call after call."""
    fixed = [output.detach() for output in outputs]

    def changed(x: Tensor, t: Any) -> Any:
        calls = iter(fixed)
        with output_as(module, lambda output, _: next(calls)):
            return energy(x, t)

    return changed


def displaced_input(energy: Energy, module: nn.Module, x: Tensor, fixed: Tensor) -> Energy:
    """The energy at a fixed x as a function of z: the module gets ``fixed + z - x``."""
    at = x.detach()

    def changed(z: Tensor, t: Any) -> Any:
        with input_as(module, lambda given: fixed.to(z) + (z - at)):
            return energy(at.to(z.dtype), t)

    return changed


def displaced(energy: Energy, module: nn.Module, x: Tensor, factor: float) -> Energy:
    """The energy at a fixed x as a function of z: the module's output is displaced by ``factor (z - x)``."""
    at = x.detach()

    def changed(z: Tensor, t: Any) -> Any:
        def move(output: Tensor, _: Tensor) -> Tensor:
            by = factor * (z - at)
            if output.shape == by.shape:
                return output + by
            if output.ndim > 2 and output.shape[1] == 2 * by.shape[1]:  # with a learned variance
                return output + torch.cat([by, torch.zeros_like(by)], dim=1)
            raise GradscopeError(f"{type(module).__name__} gave {tuple(output.shape)}")

        with output_as(module, move):
            return energy(at.to(z.dtype), t)

    return changed
