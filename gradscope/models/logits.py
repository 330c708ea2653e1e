"""What a classifier gives, as logits ``(n, classes)`` with at least two classes."""

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError

_SHAPED = ("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Permute", "T", "Transpose", "Clone", "ToCopy",
           "Alias", "UnsafeView", "Cat")  # fmt: skip
"""Operations of autograd that leave values as they are."""


def as_logits(output: Any) -> Tensor:
    """Logits ``(n, classes)`` out of what a classifier gives.

    Parameters
    ----------
    output
        Logits ``(n, classes)``, or an object that has them as ``.logits``, as transformers' models give. One logit z of
        a binary classifier, ``(n, 1)`` or ``(n,)``, becomes the two logits (0, z): p(class 1) = sigmoid(z).

    Returns
    -------
    Tensor
        ``(n, classes)``, classes >= 2, with the graph of `output`.

    Raises
    ------
    GradscopeError
        It is neither.

    Examples
    --------
    >>> as_logits(torch.tensor([[2.0], [-1.0]])).tolist()
    [[0.0, 2.0], [0.0, -1.0]]
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2) or logits.shape[-1] == 0:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise GradscopeError(
            f"a classifier gives logits of shape (n, classes), or an object with them as .logits; this one gave {got}"
        )
    if logits.ndim == 2 and logits.shape[1] > 1:
        return logits
    one = logits.reshape(-1, 1)
    return torch.cat([torch.zeros_like(one), one], dim=1)


class Logits(nn.Module):
    """A classifier whose output is made to logits by `as_logits`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.module(x))


def probabilities(module: nn.Module, x: Tensor) -> Literal["softmax", "sigmoid"] | None:
    """Which function makes probabilities of a classifier's logits; None where its output may be logits.

    Probabilities of several classes are told by their sum, and a sigmoid by the graph that it leaves: one logit between
    0 and 1 is not unusual.

    Parameters
    ----------
    module
        A classifier that takes `x`.
    x
        Images ``(n, channel, height, width)``.
    """
    with torch.no_grad():
        values = _values(module(x)).double()
    if not bool(((values >= 0) & (values <= 1)).all()):
        return None
    if values.ndim == 2 and values.shape[1] > 1 and bool(((values.sum(dim=1) - 1).abs() < 1e-3).all()):
        return "softmax"
    with torch.enable_grad():
        try:
            last = _values(module(x.clone().requires_grad_().clone())).grad_fn  # one that works in place takes a copy
        except Exception:  # it gives no gradients; whoever guides with it says so
            return None
    while last is not None and re.sub(r"Backward\d+$", "", last.name()) in _SHAPED:
        last = last.next_functions[0][0]
    return "sigmoid" if last is not None and last.name().startswith("SigmoidBackward") else None


def _values(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
