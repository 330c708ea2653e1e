"""Models whose passes run as CUDA graphs, a trial of the benchmarks alone."""

from typing import Any

import torch
from torch import Tensor, nn


def graphed(module: nn.Module) -> None:
    """Replace a module's forward by one that replays CUDA graphs, forward and backward; on a CPU it runs eagerly.

    The graphs' outputs lie in memory that the next replay overwrites, so values and gradients are copied out.
    """
    compiled = torch.compile(module.forward, backend="cudagraphs")

    def forward(x: Tensor, *rest: Any, **named: Any) -> Any:
        torch.compiler.cudagraph_mark_step_begin()
        output = compiled(_Copied.apply(x), *rest, **named)
        if isinstance(output, Tensor):
            return _Copied.apply(output)
        output.sample = _Copied.apply(output.sample)
        return output

    module.forward = forward  # type: ignore[method-assign]


class _Copied(torch.autograd.Function):
    """A copy, whose gradient is a copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return gradient.clone()
