"""Calls of the user's functions, whose results are checked."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from gradscope.errors import GradscopeError

HALF = {torch.float16: 4e-3, torch.bfloat16: 3e-2}
"""Relative rounding of a gradient computed in these types."""

Energy = Callable[[Tensor, Any], Any]


def claimed(cond_fn: Energy, x: Tensor, t: Any) -> Tensor:
    """The gradient that the user's code gives, without a graph, ``(n, *sample)``.

    Raises
    ------
    GradscopeError
        It raises, or gives no tensor of the shape of x.
    """
    try:
        with torch.enable_grad():
            found = cond_fn(x.detach().clone(), _copied(t))
    except GradscopeError:
        raise
    except Exception as error:
        raise GradscopeError(f"cond_fn: it raised {type(error).__name__}: {error}") from error
    if not isinstance(found, Tensor):
        raise GradscopeError(
            f"cond_fn: it must return the gradient as a tensor of shape {tuple(x.shape)}, got {type(found).__name__}"
        )
    if found.shape != x.shape or not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise GradscopeError(
            f"cond_fn: it must return the gradient as a tensor of shape {tuple(x.shape)}, got {kind} of shape "
            f"{tuple(found.shape)}"
        )
    return found.detach().clone()


def computes_in_half(cond_fn: Energy, x: Tensor, t: Any) -> bool:
    """Whether a function of torch that the user's code calls gives float16 or bfloat16 numbers."""
    with _Types() as seen:
        claimed(cond_fn, x, t)
    return not seen.types.isdisjoint(HALF)


class _Types(TorchFunctionMode):
    """Notes the types of what torch's functions return."""

    def __init__(self) -> None:
        super().__init__()
        self.types: set[torch.dtype] = set()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        several = result if isinstance(result, tuple | list) else (result,)
        self.types.update(each.dtype for each in several if isinstance(each, Tensor))
        return result


def values(energy: Energy, x: Tensor, t: Any) -> Tensor:
    """The energy's values, ``(n,)``, on the device of x; with a graph if x has one.

    Raises
    ------
    GradscopeError
        It raises, or does not give one number for each sample.
    """
    try:
        found = energy(x, _copied(t))
    except GradscopeError:
        raise
    except Exception as error:
        raise GradscopeError(f"energy: it raised {type(error).__name__}: {error}") from error
    if isinstance(found, np.ndarray | np.generic | list | tuple | float):
        array = np.asarray(found)
        if array.dtype.kind not in "biuf":
            raise GradscopeError(f"energy: it must return one number for each sample, got {type(found).__name__}")
        found = torch.as_tensor(array)
    if not isinstance(found, Tensor):
        raise GradscopeError(f"energy: it must return one number for each sample, got {type(found).__name__}")
    if found.ndim > 2 or found.numel() != len(x) or not found.is_floating_point():
        kind = str(found.dtype).removeprefix("torch.")
        raise GradscopeError(
            f"energy: it must return one number for each sample, {(len(x),)}, got {kind} of shape {tuple(found.shape)}"
        )
    return found.reshape(len(x)).to(x.device)


def _copied(t: Any) -> Any:
    """A timestep that a function may change in place."""
    return t.clone() if isinstance(t, Tensor) else t
