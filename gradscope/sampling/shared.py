"""What several samplers share at one x_t: the denoiser's pass, and the step of the process."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gradscope.sampling.process import Prediction, Times, Walk


class SharedPass:
    """The denoiser's output at one x_t, computed once. Each guide at x0 makes a backward pass of its own through it.

    Parameters
    ----------
    x_t
        Noisy samples, ``(n, *sample)``.
    through_denoiser
        Whether a guide differentiates through the denoiser; then the pass keeps its graph until `close`.
    """

    def __init__(self, x_t: Tensor, through_denoiser: bool) -> None:
        self._x_t, self._through_denoiser = x_t, through_denoiser
        self._leaf: Tensor | None = None
        self._output: Tensor | None = None
        self._closed = False

    def output(self, x: Tensor, denoise: Callable[[Tensor], Tensor]) -> Tensor:
        """``denoise(x)``, from the shared pass if x is x_t itself."""
        if self._closed or x.data_ptr() != self._x_t.data_ptr() or x.shape != self._x_t.shape:
            return denoise(x)
        if self._output is None:
            self._leaf = self._x_t.detach().requires_grad_(self._through_denoiser)
            with torch.set_grad_enabled(self._through_denoiser):
                self._output = denoise(self._leaf)
        if not (torch.is_grad_enabled() and x.requires_grad and self._output.requires_grad):
            return self._output.detach()
        return _Through.apply(x, self)

    def backward(self, gradient: Tensor) -> Tensor:
        """The product of a gradient at the output with the Jacobian of the pass; the graph stays."""
        assert self._output is not None
        assert self._leaf is not None
        (found,) = torch.autograd.grad(self._output, self._leaf, gradient, retain_graph=True)
        return found

    def close(self) -> None:
        """Free the graph; later questions run the denoiser again."""
        self._leaf = self._output = None
        self._closed = True


class _Through(torch.autograd.Function):
    """The output of a shared pass as a function of another leaf with the same values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shared: SharedPass) -> Tensor:
        ctx.shared = shared
        assert shared._output is not None
        return shared._output.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return ctx.shared.backward(gradient), None


class SharedWalk(Walk):
    """Steps that several samplers share: the first that asks takes it, the others get the same."""

    _at: Tensor | None = None
    _made: Tensor | None = None

    def step(self, prediction: Prediction, x_t: Tensor, times: Times, change: Tensor | None = None) -> Tensor:
        if self._made is None or self._at is not x_t:
            self._at, self._made = x_t, super().step(prediction, x_t, times, change)
        return self._made
