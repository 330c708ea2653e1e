"""Small random networks with smooth activations: a seed is a model, and its gradients exist everywhere."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

WIDTH = 24
Time = Tensor | float
Levels = Callable[[Time], tuple[float, float]]
"""Signal and noise at a timestep: x_t = signal x_0 + noise epsilon."""


class Network(nn.Module):
    """Two layers over a flattened sample and its timestep; ``gain`` multiplies the output."""

    def __init__(self, elements: int, outputs: int, generator: torch.Generator, gain: float = 1.0) -> None:
        super().__init__()
        inputs = elements + 6
        self.first = nn.Parameter(torch.randn(WIDTH, inputs, generator=generator) * 1.5 / inputs**0.5)
        self.second = nn.Parameter(torch.randn(outputs, WIDTH, generator=generator) * 2 * gain / WIDTH**0.5)
        self.requires_grad_(False)

    def forward(self, x: Tensor, t: Time) -> Tensor:
        turns = torch.as_tensor(t, dtype=x.dtype).expand(len(x))[:, None] * (2 * math.pi / 1000)
        angles = turns * torch.tensor([0.5, 1.0, 3.0], dtype=x.dtype)
        inputs = torch.cat([x.flatten(1), 2 * angles.sin(), 2 * angles.cos()], dim=1)
        return (inputs @ self.first.T).tanh() @ self.second.T


class Denoiser(nn.Module):
    """A random prediction of the clean sample, given as ``epsilon``, ``v``, ``sample`` or a ``flow``'s velocity."""

    def __init__(self, shape: tuple[int, ...], levels: Levels, prediction: str, generator: torch.Generator) -> None:
        super().__init__()
        elements = math.prod(shape)
        self.body, self.levels, self.prediction = Network(elements, elements, generator), levels, prediction

    def forward(self, x: Tensor, t: Time) -> Tensor:
        signal, noise = for_each(self.levels, t, x)
        x_0 = signal * x + 0.7 * noise * self.body(x, t).view_as(x)
        if self.prediction == "sample":
            return x_0
        epsilon = (x - signal * x_0) / noise
        if self.prediction == "epsilon":
            return epsilon
        return signal * epsilon - noise * x_0 if self.prediction == "v" else epsilon - x_0


def for_each(levels: Levels, t: Time, x: Tensor) -> tuple[Any, Any]:
    """Signal and noise, in a shape that broadcasts over x where t is ``(n,)``."""
    if not isinstance(t, Tensor) or not t.ndim:
        return levels(t)
    found = torch.tensor([levels(each) for each in t.tolist()], dtype=x.dtype)
    return tuple(column.view(-1, *[1] * (x.ndim - 1)) for column in found.T)


def clean(output: Tensor, x: Tensor, signal: float, noise: float, prediction: str) -> Tensor:
    """The clean sample that the output of a denoiser predicts."""
    if prediction == "sample":
        return output
    if prediction == "epsilon":
        return (x - noise * output) / signal
    return signal * x - noise * output if prediction == "v" else x - noise * output
