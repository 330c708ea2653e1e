"""Find the modules that a user's function calls, so that they can run in float64 and stay as they are."""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import nn

_DEEP = 4
"""Largest number of references from the function to a module."""


def modules_of(functions: Iterable[Callable[..., Any]]) -> list[nn.Module]:
    """Modules that functions reach through closures, globals, defaults, partial arguments and bound objects.

    Examples
    --------
    >>> from torch import nn
    >>> guide = nn.Flatten()
    >>> modules_of([lambda x, t: guide(x)])
    [Flatten(start_dim=1, end_dim=-1)]
    """
    found: dict[int, nn.Module] = {}
    seen: set[int] = set()
    level: list[Any] = list(functions)
    for _ in range(_DEEP + 1):  # by breadth: what is seen first is seen by the shortest way
        new = [value for value in level if _is_new(value, seen)]
        found.update({id(value): value for value in new if isinstance(value, nn.Module)})
        level = [part for value in new if not isinstance(value, nn.Module) for part in _parts(value)]
    return list(found.values())


def _is_new(value: Any, seen: set[int]) -> bool:
    if id(value) in seen or inspect.ismodule(value) or isinstance(value, type | str | int | float):
        return False
    seen.add(id(value))
    return True


def _parts(value: Any) -> Iterator[Any]:
    """What a function, a container, or an object of the user's refers to."""
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif inspect.ismethod(value):
        yield from (value.__self__, value.__func__)
    elif inspect.isfunction(value):
        yield from value.__defaults__ or ()
        yield from (cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell))
        names = value.__code__.co_names
        yield from (value.__globals__[name] for name in names if name in value.__globals__)
    elif isinstance(value, list | tuple | set):
        yield from value
    elif isinstance(value, dict):
        yield from value.values()
    elif type(value).__module__.split(".")[0] not in ("torch", "numpy", "builtins", "diffusers"):
        yield from getattr(value, "__dict__", {}).values()


def _is_filled(cell: Any) -> bool:
    try:
        _ = cell.cell_contents
    except ValueError:
        return False
    return True
