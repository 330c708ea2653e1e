"""Gradients of an objective with respect to samples."""

from collections.abc import Callable

import torch
from torch import Tensor


def gradient(objective: Callable[[Tensor, Tensor], Tensor], x: Tensor, label: Tensor) -> Tensor:
    """Gradient of ``objective(x, label)``, one number per sample, with respect to x. It has x's shape and no graph.

    Examples
    --------
    >>> gradient(lambda x, label: (x**2).flatten(1).sum(dim=1), torch.ones(1, 1, 1, 2), torch.tensor([0]))
    tensor([[[[2., 2.]]]])
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (out,) = torch.autograd.grad(objective(x.clone(), label).sum(), x)  # a copy: the model may work in place
    return out
