"""From the sampler's device to host memory, without making the sampler wait."""

import queue
import time
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


class Slot:
    """Host buffers for the values of one step; `arrays` are NumPy views of them."""

    def __init__(self, layout: Mapping[str, tuple[tuple[int, ...], torch.dtype]], pinned: bool) -> None:
        self._tensors = {k: torch.empty(shape, dtype=dtype, pin_memory=pinned) for k, (shape, dtype) in layout.items()}
        self._event: torch.cuda.Event | None = None
        self.arrays: dict[str, np.ndarray] = {}

    def fill(self, values: Mapping[str, Tensor], stream: torch.cuda.Stream | None) -> None:
        if stream is None:
            for name, value in values.items():
                self._tensors[name][: len(value)].copy_(value)
        else:
            stream.wait_stream(torch.cuda.current_stream(stream.device))
            with torch.cuda.stream(stream):
                for name, value in values.items():
                    self._tensors[name][: len(value)].copy_(value, non_blocking=True)
                    value.record_stream(stream)
                self._event = torch.cuda.Event()
                self._event.record(stream)
        self.arrays = {name: self._tensors[name][: len(value)].numpy() for name, value in values.items()}

    def wait(self) -> None:
        """Return when the buffers are filled."""
        if self._event is not None:
            self._event.synchronize()


class Ring:
    """A fixed number of slots. `put` copies into a free one and waits, counted in `stalled`, where there is none.

    On CUDA the buffers are pinned and the copies run on a side stream; values are cast before, on the device.
    """

    def __init__(
        self, layout: Mapping[str, tuple[tuple[int, ...], torch.dtype]], device: torch.device, slots: int = 4
    ) -> None:
        cuda = device.type == "cuda"
        self._dtypes = {name: dtype for name, (_, dtype) in layout.items()}
        self._stream = torch.cuda.Stream(device) if cuda else None
        self._free: queue.SimpleQueue[Slot] = queue.SimpleQueue()
        for _ in range(slots):
            self._free.put(Slot(layout, pinned=cuda))
        self.stalled = 0.0
        """Seconds for which the sampler waited for a free slot."""

    def put(self, values: Mapping[str, Tensor]) -> Slot:
        start = time.perf_counter()
        slot = self._free.get()
        self.stalled += time.perf_counter() - start
        slot.fill({name: value.to(self._dtypes[name]).contiguous() for name, value in values.items()}, self._stream)
        return slot

    def release(self, slot: Slot) -> None:
        self._free.put(slot)
