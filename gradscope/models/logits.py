"""Outputs of classifiers as logits ``(n, classes)`` with at least two classes."""

import re
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError
from probes.timed import ask, takes_timestep

_SHAPED = ("View", "Reshape", "Squeeze", "Unsqueeze", "Select", "Slice", "Permute", "T", "Transpose", "Clone", "ToCopy",
           "Alias", "UnsafeView", "Cat")  # fmt: skip
"""Operations of autograd that do not change values."""


def as_logits(output: Any) -> Tensor:
    """Logits ``(n, classes)`` of a classifier's output.

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
        The output has neither form.

    Examples
    --------
    >>> as_logits(torch.tensor([[2.0], [-1.0]])).tolist()
    [[0.0, 2.0], [0.0, -1.0]]
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2) or logits.shape[-1] == 0:
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
        raise GradscopeError(
            f"a classifier must give logits of shape (n, classes), or an object with them as .logits; it gave {got}"
        )
    if logits.ndim == 2 and logits.shape[1] > 1:
        return logits
    one = logits.reshape(-1, 1)
    return torch.cat([torch.zeros_like(one), one], dim=1)


class Logits(nn.Module):
    """A classifier with its output converted by `as_logits`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return as_logits(self.module(x))


class TimedLogits(Logits):
    """A noise-aware classifier f(x, t) with its output converted by `as_logits`."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        return as_logits(ask(self.module, x, t) if takes_timestep(self.module) else self.module(x, t))


class Tempered(nn.Module):
    """A classifier with its logits divided by a temperature (equation 9 of arXiv 1706.04599)."""

    temperature: Tensor

    def __init__(self, module: nn.Module, temperature: float) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("temperature", torch.tensor(temperature))  # a buffer: the weights' hash depends on it

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x) / self.temperature


class TimedTempered(Tempered):
    """A noise-aware classifier f(x, t) with its logits divided by a temperature."""

    def forward(self, x: Tensor, t: Tensor) -> Tensor:  # type: ignore[override]
        return ask(self.module, x, t) / self.temperature


def tempered(module: nn.Module, temperature: float) -> nn.Module:
    """The classifier with its logits divided by `temperature`; as it is for 1."""
    if temperature == 1:
        return module
    return (TimedTempered if takes_timestep(module) else Tempered)(module, temperature)


def timed(module: nn.Module, takes: bool | None) -> nn.Module:
    """The classifier, wrapped where `takes` says other than the signature whether it takes a timestep; None: as is."""
    if takes is None or takes == takes_timestep(module):
        return module
    return TimedLogits(module) if takes else Logits(module)


def probabilities(module: nn.Module, x: Tensor) -> Literal["softmax", "sigmoid"] | None:
    """Name of the last function of a classifier that gives probabilities; None if its output may be logits.

    Softmax shows in the sum over classes. Sigmoid shows in autograd's graph only, since single logits may well lie
    between 0 and 1.

    Parameters
    ----------
    module
        A classifier that takes `x`.
    x
        Samples ``(n, *sample)``.
    """
    with torch.no_grad():
        values = _values(ask(module, x, 0)).double()
    if not bool(((values >= 0) & (values <= 1)).all()):
        return None
    if values.ndim == 2 and values.shape[1] > 1 and bool(((values.sum(dim=1) - 1).abs() < 1e-3).all()):
        return "softmax"
    with torch.enable_grad():
        try:
            last = _values(
                ask(module, x.clone().requires_grad_().clone(), 0)
            ).grad_fn  # a copy, in case it works in place
        except Exception:  # it gives no gradients, which guidance reports
            return None
    while last is not None and re.sub(r"Backward\d+$", "", last.name()) in _SHAPED:
        last = last.next_functions[0][0]
    return "sigmoid" if last is not None and last.name().startswith("SigmoidBackward") else None


def _values(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
