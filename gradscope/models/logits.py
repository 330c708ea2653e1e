"""What a classifier gives, as logits of at least two classes."""

from typing import Any

import torch
from torch import Tensor

from gradscope.errors import GradscopeError


def as_logits(output: Any) -> Tensor:
    """Logits ``(n, classes)`` of what a classifier gave.

    Parameters
    ----------
    output
        A tensor, or an object that has it as ``.logits`` (as the models of transformers give). One logit a sample, of
        shape ``(n, 1)`` or ``(n,)``, as a binary classifier has, becomes two classes: ``[0, z]``, so that the
        probability of class 1 is the sigmoid of z.

    Raises
    ------
    GradscopeError
        It is neither.
    """
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim not in (1, 2):
        got = f"a tensor of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
        raise GradscopeError(
            f"classifier: it gives logits of shape (n, classes), or an object with them as .logits; this one gave {got}"
        )
    logits = logits[:, None] if logits.ndim == 1 else logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1) if logits.shape[1] == 1 else logits
