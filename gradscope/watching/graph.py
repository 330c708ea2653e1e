"""Where a gradient is taken: walk autograd's graph from a tensor back to the leaves that it depends on."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

_MOST = 200_000
"""Largest number of nodes that are visited."""


class Passage(NamedTuple):
    """One call of the denoiser, as a shortcut through its graph."""

    node: Any
    """Node of its output in autograd's graph."""
    source: Tensor
    """Its input."""


class Origin(NamedTuple):
    """A leaf that a tensor depends on."""

    leaf: Tensor
    through_denoiser: bool
    """Whether a path from the tensor to the leaf passes through the denoiser."""


def origins(tensor: Tensor, passages: Sequence[Passage] = ()) -> list[Origin]:
    """The leaves that require a gradient and that a tensor depends on, parameters left out.

    Parameters
    ----------
    tensor
        For example the input of a guide.
    passages
        Calls of the denoiser. Their graphs are not walked through: the walk goes on at the denoiser's input.

    Examples
    --------
    >>> import torch
    >>> x_t = torch.zeros(2, requires_grad=True)
    >>> [origin.leaf is x_t for origin in origins(2 * x_t)]
    [True]
    """
    shortcuts = {passage.node: passage.source for passage in passages}
    found: dict[int, Origin] = {}
    visited: set[tuple[Any, bool]] = set()
    waiting: list[tuple[Any, bool]] = []

    def reach(at: Tensor, through: bool) -> None:
        if at.grad_fn is not None:
            waiting.append((at.grad_fn, through))
        elif at.requires_grad and not isinstance(at, nn.Parameter):
            known = found.get(id(at))
            found[id(at)] = Origin(at, through or (known is not None and known.through_denoiser))

    reach(tensor, False)
    while waiting and len(visited) < _MOST:
        node, through = waiting.pop()
        if node is None or (node, through) in visited:
            continue
        visited.add((node, through))
        if node in shortcuts:
            reach(shortcuts[node], True)
        elif (variable := getattr(node, "variable", None)) is not None:
            reach(variable, through)
        else:
            # A denoiser in a reentrant checkpoint runs without a graph; its place is the checkpoint's node.
            through = through or (not passages and node.name().startswith("CheckpointFunction"))
            waiting.extend((function, through) for function, _ in node.next_functions)
    return list(found.values())
