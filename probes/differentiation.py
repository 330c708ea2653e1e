"""The gradient of a function of images."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(objective: Callable[[Tensor, Tensor], Tensor], x: Tensor, label: Tensor) -> Tensor:
    """Gradient of ``objective(x, label)``, one number a sample, with respect to x: of x's shape, without a graph."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (out,) = torch.autograd.grad(objective(x.clone(), label).sum(), x)  # a copy, for a model that works in place
    return out
