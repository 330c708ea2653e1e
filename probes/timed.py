"""Calls of classifiers f(x), and of noise-aware ones f(x, t), as guided-diffusion trains them (arXiv 2105.05233)."""

from inspect import Parameter, signature
from typing import Any

import torch
from torch import Tensor, nn

_NAMES = ("t", "timestep", "timesteps")
_POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def takes_timestep(module: nn.Module) -> bool:
    """Whether ``module.forward`` takes a timestep besides the samples.

    It does if it has a parameter named t, timestep or timesteps, or exactly two required positional parameters.

    Examples
    --------
    >>> class NoiseAware(nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return x.flatten(1)
    >>> takes_timestep(NoiseAware()), takes_timestep(nn.Flatten())
    (True, False)
    """
    return _parameter(module) is not None


def ask(module: nn.Module, x: Tensor, timestep: float | Tensor) -> Any:
    """Output of a classifier: ``module(x, t)`` if it takes a timestep, else ``module(x)``.

    Parameters
    ----------
    module
        The classifier; see `takes_timestep`.
    x
        Samples ``(n, *sample)``, for example images ``(n, channel, height, width)``.
    timestep
        Diffusion time of the samples: one number, or t itself, ``(n,)``, as a denoiser takes it.

    Examples
    --------
    >>> class NoiseAware(nn.Module):
    ...     def forward(self, x, timesteps):
    ...         return timesteps
    >>> ask(NoiseAware(), torch.zeros(2, 1, 4, 4), 10)
    tensor([10, 10])
    """
    parameter = _parameter(module)
    if parameter is None:
        return module(x)
    t = timestep if isinstance(timestep, Tensor) else torch.full((len(x),), timestep, device=x.device)
    return module(x, t) if parameter.kind is Parameter.POSITIONAL_ONLY else module(x, **{parameter.name: t})


def _parameter(module: nn.Module) -> Parameter | None:
    """The parameter of ``module.forward`` that takes the timestep."""
    try:
        # torch.compile wraps the module in one whose forward takes anything
        parameters = list(signature(getattr(module, "_orig_mod", module).forward).parameters.values())
    except (TypeError, ValueError):  # compiled code may show no signature
        return None
    required = [p for p in parameters if p.kind in _POSITIONAL and p.default is Parameter.empty]
    by_name = (p for p in parameters[1:] if p.name in _NAMES and p.kind in (*_POSITIONAL, Parameter.KEYWORD_ONLY))
    return next(by_name, None) or (required[1] if len(required) == 2 else None)
