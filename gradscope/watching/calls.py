"""Find the tensors in the arguments and results of a model that is called in an unknown way."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

_SAMPLES = ("sample", "hidden_states", "x", "x_t", "xt", "noisy", "input", "inputs", "trajectory", "latents")
_TIMES = ("timestep", "timesteps", "t", "time", "times", "sigma", "sigmas", "noise_labels", "noise_level", "ts")
_RESULTS = ("sample", "logits", "prediction", "prev_sample")


def sample_of(arguments: Sequence[Any], named: Mapping[str, Any]) -> Tensor | None:
    """The noisy sample among a denoiser's arguments, or a guide's input: the first floating-point tensor."""
    for value in (*arguments[:1], *(named[name] for name in _SAMPLES if name in named), *named.values()):
        if isinstance(value, Tensor) and value.is_floating_point() and value.ndim >= 1:
            return value
    return None


def time_of(arguments: Sequence[Any], named: Mapping[str, Any], samples: int) -> Any:
    """The time among a denoiser's arguments, for a batch of `samples`; None if there is none.

    It is found by its name, or is the first further argument with one number, or with one for each sample.
    """
    for name in _TIMES:
        if name in named:
            return named[name]
    for value in arguments[1:]:
        if isinstance(value, Tensor):
            if value.numel() == 1 or tuple(value.shape) == (samples,):
                return value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            return value
    return None


def number(time: Any) -> float | None:
    """A time as a number; of one per sample, the first one.

    Raises
    ------
    ValueError
        Samples of a batch have different times.
    """
    if isinstance(time, Tensor):
        if time.numel() == 0 or time.is_complex():
            return None
        flat = time.detach().reshape(-1)
        if flat.numel() > 1 and bool((flat != flat[0]).any()):
            raise ValueError(f"samples of one batch have different times, {flat[:4].tolist()}")
        return float(flat[0])
    return float(time) if isinstance(time, int | float) and not isinstance(time, bool) else None


def tensor_of(result: Any) -> Tensor | None:
    """The tensor in a result: itself, a field of an object, or the first of a tuple."""
    if isinstance(result, Tensor):
        return result
    for name in _RESULTS:
        if isinstance(found := getattr(result, name, None), Tensor):
            return found
    values = result.values() if isinstance(result, Mapping) else result if isinstance(result, tuple | list) else ()
    return next((value for value in values if isinstance(value, Tensor)), None)


def copied(tensor: Tensor) -> Tensor:
    """A copy without a graph, which loops that work in place cannot change."""
    with torch.inference_mode(False), torch.no_grad():
        return tensor.detach().clone()
