"""Leave users' modules as they were: weights, types, buffers, gradients; and run them in float64 for a while."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

_MOST = 200_000_000
"""Largest number of weights that are copied to float64."""


@contextmanager
def untouched(modules: Sequence[nn.Module]) -> Iterator[None]:
    """Restore buffers, gradients, modes, `requires_grad` and torch's random state on leaving: code may change them."""
    buffers = [(buffer, buffer.detach().clone()) for module in modules for buffer in module.buffers()]
    grads = [(p, None if p.grad is None else (p.grad, p.grad.clone())) for m in modules for p in m.parameters()]
    required = [(p, p.requires_grad) for m in modules for p in m.parameters()]
    modes = [(part, part.training) for module in modules for part in module.modules()]
    state = torch.random.get_rng_state()
    devices = [torch.device("cuda", i) for i in range(torch.cuda.device_count())] if _uses_cuda(modules) else []
    states = [torch.cuda.get_rng_state(device) for device in devices]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
            for parameter, kept in grads:
                if kept is None:
                    parameter.grad = None
                else:
                    parameter.grad = kept[0]
                    kept[0].copy_(kept[1])
        for parameter, is_required in required:
            parameter.requires_grad_(is_required)
        for part, mode in modes:
            part.training = mode
        torch.random.set_rng_state(state)
        for device, of_device in zip(devices, states, strict=True):
            torch.cuda.set_rng_state(of_device, device)


def _uses_cuda(modules: Sequence[nn.Module]) -> bool:
    return any(p.is_cuda for module in modules for p in module.parameters())


class Wide:
    """Float64 copies of the modules' weights, which the modules hold only inside of `with wide:`."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        tensors = {id(t): t for m in modules for t in (*m.parameters(), *m.buffers()) if t.is_floating_point()}
        narrow = [t for t in tensors.values() if t.dtype != torch.float64]
        self.possible = sum(t.numel() for t in narrow) <= _MOST
        self._pairs: list[tuple[Tensor, Tensor]] = []
        self._narrow = narrow if self.possible else []

    def __enter__(self) -> None:
        if not self._pairs:
            self._pairs = [(t, t.data.double()) for t in self._narrow]
        self._kept = [(t, t.data) for t in self._narrow]
        for tensor, wide in self._pairs:
            tensor.data = wide

    def __exit__(self, *error: object) -> None:
        for tensor, data in self._kept:
            tensor.data = data
