"""The noise of a block: the initial noise and that of every step."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import torch
from torch import Tensor


class BlockNoise:
    """Standard normal noise. Each sample has its own generator on the CPU, so noise does not depend on the device.

    On a GPU, if it draws ahead, a thread draws the next step's noise while the device computes the current step, and
    copies it from pinned memory: the device does not wait for it.

    Parameters
    ----------
    seeds
        Seeds of the generators, one per sample.
    sample_shape
        Shape of one sample.
    device
        Device of the noise.
    ahead
        Draw ahead; only where nothing else draws from the generators.

    Attributes
    ----------
    generators : list of torch.Generator
        The samples' generators.
    """

    def __init__(
        self, seeds: Sequence[int], sample_shape: tuple[int, ...], device: torch.device, ahead: bool = False
    ) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        self._sample_shape, self._device = sample_shape, device
        self._thread = ThreadPoolExecutor(1, "gradscope-noise") if ahead and device.type == "cuda" else None
        self._ahead: Future[Tensor] | None = None

    def draw(self) -> Tensor:
        """The next noise, ``(n, *sample)`` on the device."""
        if self._thread is None:
            return self._draw().to(self._device, non_blocking=True)
        drawn = self._draw() if self._ahead is None else self._ahead.result()
        self._ahead = self._thread.submit(self._draw)
        return drawn.to(self._device, non_blocking=True)

    def _draw(self) -> Tensor:
        pinned = self._device.type == "cuda"
        out = torch.empty(len(self.generators), *self._sample_shape, pin_memory=pinned)
        for row, generator in zip(out, self.generators, strict=True):
            row.normal_(generator=generator)
        return out

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._thread is not None:
            self._thread.shutdown()


def own_noise(seeds: Sequence[int], key: Sequence[int], like: Tensor) -> Tensor:
    """Standard normal noise of the shape of `like`, ``(n, *sample)``, a function of each sample's seed and the key.

    It uses no generator of the sampler, so a method that draws noise changes neither the initial noise nor a step's.
    """
    if len(seeds) != len(like):
        raise ValueError(f"noise takes one seed per sample, got {len(seeds)} for {len(like)} samples")
    rows = [torch.randn(like.shape[1:], generator=own_generator(seed, key)) for seed in seeds]
    return torch.stack(rows).to(like)


def own_generator(seed: int, key: Sequence[int]) -> torch.Generator:
    """The generator of a sample's own noise for a key, for example the number of a step."""
    # The spawn key separates this stream from the sampler's, which uses the seed itself.
    (state,) = np.random.SeedSequence(int(seed), spawn_key=tuple(key)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))
