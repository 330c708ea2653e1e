"""Models in float32, in which all is computed."""

import warnings

import torch
from torch import nn

from gradscope.errors import GradscopeWarning


def in_float32(module: nn.Module, where: str) -> nn.Module:
    """The model in float32, where all of it has another floating type; a warning says so.

    A model of several types converts its inputs by itself, it stays as it is.

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
