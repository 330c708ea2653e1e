"""The form of models' weights: float32, in which gradscope computes, and the layout that makes convolutions fast."""

import warnings

import torch
from torch import nn

from gradscope.errors import GradscopeWarning


def in_float32(module: nn.Module, where: str) -> nn.Module:
    """Convert a model to float32 if all its parameters have one other floating type; a warning says so.

    A model of several types converts its inputs itself and is left alone.

    Parameters
    ----------
    module
        Changed in place.
    where
        The configuration's key, for the warning.
    """
    types = {parameter.dtype for parameter in module.parameters() if parameter.is_floating_point()}
    if len(types) != 1 or torch.float32 in types:
        return module
    name = str(types.pop()).removeprefix("torch.")
    warnings.warn(f"{where}: the model is in {name}; it runs in float32", GradscopeWarning, stacklevel=3)
    return module.float()


def channels_last(module: nn.Module) -> nn.Module:
    """Store the weights of convolutions over images with channels last, which is faster, on CPUs too.

    torch refuses the layout for tensors of five dimensions, as convolutions over videos have; then nothing changes.

    Parameters
    ----------
    module
        Changed in place.
    """
    if any(tensor.ndim == 5 for tensor in (*module.parameters(), *module.buffers())):
        return module
    return module.to(memory_format=torch.channels_last)
