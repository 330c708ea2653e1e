"""Inputs of a sampler: labels, and models that can be differentiated."""

import operator
from collections.abc import Iterable, Mapping

import numpy as np
from torch import Tensor, nn

from gradscope.errors import GradscopeError


def class_labels(labels: Iterable[int]) -> list[int]:
    """Target classes as integers.

    Raises
    ------
    GradscopeError
        There are no labels, or they are not integers.
    """
    values = labels.tolist() if isinstance(labels, Tensor | np.ndarray) else labels
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise GradscopeError(f"labels: must be one class per sample, for example [0, 1, 2], got {labels!r}")
    targets = []
    for value in values:
        try:
            targets.append(operator.index(value))
        except TypeError:
            raise GradscopeError(f"labels: classes must be whole numbers, got {value!r}") from None
        if not -(2**63) <= targets[-1] < 2**63:
            raise GradscopeError(f"labels: classes must be whole numbers below 2**63 in size, got {value!r}")
    if not targets:
        raise GradscopeError("labels: at least one sample is needed, got none")
    return targets


def refuse_inference_tensors(modules: Mapping[str, nn.Module]) -> None:
    """Raise GradscopeError if a model was made inside `torch.inference_mode`: it cannot be differentiated."""
    for name, module in modules.items():
        if any(tensor.is_inference() for tensor in (*module.parameters(), *module.buffers())):
            raise GradscopeError(
                f"{name}: its weights were made inside torch.inference_mode() and cannot be differentiated; make or "
                "load it outside"
            )
