"""The noise of a block: the initial noise and that of every step."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch
from torch import Tensor


class BlockNoise:
    """Standard normal noise. Each sample has its own generator on the CPU, so noise does not depend on the device.

    On a GPU, a thread draws the next step's noise while the device computes the current step, and copies it from pinned
    memory: the device does not wait for it.

    Parameters
    ----------
    seeds
        Seeds of the generators, one per sample.
    image_shape
        Channel, height, width.
    device
        Device of the noise.
    """

    def __init__(self, seeds: Sequence[int], image_shape: tuple[int, int, int], device: torch.device) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._image_shape, self._device = image_shape, device
        self._thread = ThreadPoolExecutor(1, "gradscope-noise") if device.type == "cuda" else None
        self._ahead: Future[Tensor] | None = None

    def draw(self) -> Tensor:
        """The next noise, ``(n, channel, height, width)`` on the device."""
        if self._thread is None:
            return self._draw()
        drawn = self._draw() if self._ahead is None else self._ahead.result()
        self._ahead = self._thread.submit(self._draw)
        return drawn.to(self._device, non_blocking=True)

    def _draw(self) -> Tensor:
        pinned = self._device.type == "cuda"
        out = torch.empty(len(self._generators), *self._image_shape, pin_memory=pinned)
        for row, generator in zip(out, self._generators, strict=True):
            row.normal_(generator=generator)
        return out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._thread is not None:
            self._thread.shutdown()
