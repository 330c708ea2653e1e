"""Copy values from the sampler's device to host memory without making the sampler wait."""

import queue
import time
from collections.abc import Mapping
from math import prod

import numpy as np
import torch
from torch import Tensor

Layout = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Largest shape, and dtype, of each value by name."""


class Slot:
    """Host memory for the values of one step, one buffer per dtype. `arrays` are NumPy views of it."""

    def __init__(self, layout: Layout, pinned: bool) -> None:
        sizes: dict[torch.dtype, int] = {}
        for shape, dtype in layout.values():
            sizes[dtype] = sizes.get(dtype, 0) + prod(shape)
        self._buffers = {dtype: torch.empty(size, dtype=dtype, pin_memory=pinned) for dtype, size in sizes.items()}
        self._event: torch.cuda.Event | None = None
        self.arrays: dict[str, np.ndarray] = {}

    def fill(self, values: Mapping[str, Tensor], stream: torch.cuda.Stream | None) -> None:
        """Copy the values, those of one dtype at once. On CUDA they are joined on the device and copied in `stream`."""
        self.arrays = {}
        joined: dict[torch.dtype, Tensor] = {}
        for dtype, buffer in self._buffers.items():
            chosen = {name: value for name, value in values.items() if value.dtype == dtype}
            if not chosen:
                continue
            host = buffer[: sum(value.numel() for value in chosen.values())]
            flat = [value.reshape(-1) for value in chosen.values()]
            if stream is None:
                torch.cat(flat, out=host)
            else:
                joined[dtype] = torch.cat(flat)
            parts = host.split([value.numel() for value in chosen.values()])
            self.arrays |= {
                name: part.view(value.shape).numpy() for (name, value), part in zip(chosen.items(), parts, strict=True)
            }
        if stream is not None:
            self._copy(joined, stream)

    def _copy(self, joined: Mapping[torch.dtype, Tensor], stream: torch.cuda.Stream) -> None:
        stream.wait_stream(torch.cuda.current_stream(stream.device))
        with torch.cuda.stream(stream):
            for dtype, values in joined.items():
                self._buffers[dtype][: len(values)].copy_(values, non_blocking=True)
                values.record_stream(stream)
            self._event = torch.cuda.Event()
            self._event.record(stream)

    def wait(self) -> None:
        """Wait until the buffers are filled."""
        if self._event is not None:
            self._event.synchronize()


class Ring:
    """A fixed number of slots. `put` copies into a free slot, and waits if there is none; `stalled` sums up the waits.

    On CUDA the buffers are pinned, values are cast on the device, and copies run on a side stream.
    """

    def __init__(self, layout: Layout, device: torch.device, slots: int = 4) -> None:
        cuda = device.type == "cuda"
        self._dtypes = {name: dtype for name, (_, dtype) in layout.items()}
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for _ in range(slots):
            self._free.put(Slot(layout, pinned=cuda))
        self.stalled = 0.0
        """Seconds that the sampler waited for free slots."""

    def put(self, values: Mapping[str, Tensor]) -> Slot:
        start = time.perf_counter()
        slot = self._free.get()
        self.stalled += time.perf_counter() - start
        slot.fill({name: value.to(self._dtypes[name]) for name, value in values.items()}, self._stream)
        return slot

    def release(self, slot: Slot) -> None:
        self._free.put(slot)
