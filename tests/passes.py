"""Counting the passes of models by hooks."""

from collections import Counter
from typing import Any, NamedTuple

from torch import Tensor, nn


class Passes(NamedTuple):
    """Forward and backward passes of one model."""

    forward: int
    backward: int

    def __mul__(self, times: Any) -> "Passes":
        return Passes(self.forward * times, self.backward * times)

    def __add__(self, other: Any) -> "Passes":
        return Passes(self.forward + other.forward, self.backward + other.backward)


class Counted:
    """Counts the passes of a module: calls of its forward hook, and of a hook on the gradient of its output.

    A call counts once for each `block` of samples in it, so that a larger batch is no smaller number of passes.
    """

    def __init__(self, module: nn.Module, block: int) -> None:
        self._count: Counter[str] = Counter()
        self._block = block
        module.register_forward_hook(self._forward)

    def _forward(self, module: nn.Module, given: Any, output: Any) -> None:
        made = output if isinstance(output, Tensor) else output.sample
        blocks, rest = divmod(len(made), self._block)
        assert rest == 0
        self._count["forward"] += blocks
        if made.requires_grad:
            made.register_hook(lambda gradient: self._count.update(backward=blocks))

    @property
    def passes(self) -> Passes:
        """The passes since the last question."""
        found = Passes(self._count["forward"], self._count["backward"])
        self._count.clear()
        return found
