"""The steps of a block that wait until their chunks are full."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf

import numpy as np

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Where
from gradscope.store.schema import WRITTEN, Array, Schema, fill_value


@dataclass
class Frame:
    """The values of one step of one block, in host memory.

    The first dimension of an array is the block's samples; of a tensor it is the samples whose tensors are kept.
    ``wait()`` returns when the arrays are filled; ``release()`` allows their memory to be used again.
    """

    cell: tuple[int, ...]
    first_sample: int
    step: int
    arrays: Mapping[str, np.ndarray]
    wait: Callable[[], None] = lambda: None
    release: Callable[[], None] = lambda: None
    repeat: int = 0
    """Number of this step's repetition, from 0; used if the store has the dimension `repeat`."""


class Staging:
    """Steps of one block that wait until their chunks are full; chunks are written whole, from here.

    A tensor's chunk is written when it is full, and once before that, if at least half of it has waited for some
    seconds. However slow the sampler is, at most twice the tensors' bytes are written. Scalars are small, so they are
    written whenever they have waited.
    """

    def __init__(self, schema: Schema, cell: tuple[int, ...], first_sample: int, samples: int) -> None:
        self.schema, self.cell, self.first_sample = schema, cell, first_sample
        self.rows = slice(first_sample, first_sample + samples)
        self.kept = schema.kept_samples(first_sample, samples)
        rows = schema.stored_samples
        self.staged = min(samples, -(-self.kept // rows) * rows)  # samples of tensors, in whole stored objects
        self.scalars = {a.name: self._empty(a, samples, schema.scalar_chunk_steps) for a in schema.scalars}
        self.tensors = {
            a.name: self._empty(a, self.staged, schema.tensor_chunk[1]) for a in schema.tensors if self.kept
        }
        self.marker = np.zeros((samples, schema.grid.timesteps, *schema.repeats), WRITTEN.dtype)
        self.next = 0
        """The step after the last one that arrived."""
        self.since = inf
        """Time at which the oldest step arrived whose scalars are not written; infinite if there is none."""
        self.unmarked: list[tuple[int, ...]] = []
        """Steps (and repetitions) whose tensors are not written."""
        self.first_marked = 0
        """First step whose marker differs from the stored one."""
        self.halved = False
        """Whether the tensors' chunk that is being filled was already written once."""

    def _empty(self, array: Array, samples: int, steps: int) -> np.ndarray:
        shape = (samples, steps, *self.schema.repeats, *self.schema.extra(array))
        return np.full(shape, fill_value(array.dtype), dtype=array.dtype)

    def skips_scalars(self, step: int) -> bool:
        """Whether a step lies beyond the chunk of scalars that waits to be filled, because steps were left out."""
        size = self.schema.scalar_chunk_steps
        return self.waiting and (self.next - 1) // size < step // size

    def skips_tensors(self, step: int) -> bool:
        """The same for the tensors' chunk."""
        size = self.schema.tensor_chunk[1]
        return bool(self.unmarked) and (self.next - 1) // size < step // size

    @property
    def waiting(self) -> bool:
        """Whether there are steps whose scalars are not written."""
        return self.since < inf

    @property
    def ended(self) -> bool:
        """Whether the last step has arrived."""
        return self.next == self.schema.grid.timesteps

    def put(self, frame: Frame) -> None:
        """Copy the values of a step. Steps may be left out; they stay unwritten.

        Raises
        ------
        GradscopeError
            A later step has arrived before.
        """
        schema, step = self.schema, frame.step
        if step < self.next - 1:
            raise GradscopeError(f"the steps of a block must come in order: step {step} came after {self.next - 1}")
        at: tuple[int, ...] = (frame.repeat,) if schema.repeats else ()
        for skipped in range(self.next, step):  # clear the steps of an earlier chunk in their places
            for staged, size in ((self.scalars, schema.scalar_chunk_steps), (self.tensors, schema.tensor_chunk[1])):
                for values in staged.values():
                    values[:, skipped % size] = fill_value(values.dtype)
        fresh = bool(at) and step >= self.next
        self._put(self.scalars, frame, (slice(None), step % schema.scalar_chunk_steps, *at), fresh)
        if self.tensors and schema.keeps_tensor(step):
            self._put(self.tensors, frame, (slice(self.kept), step % schema.tensor_chunk[1], *at), fresh)
            self.unmarked.append((step, *at))
        place: Where = (slice(None), step, *at)
        self.marker[place] = 1
        self.first_marked = min(self.first_marked, step)
        self.next, self.since = step + 1, min(self.since, time.monotonic())

    def _put(self, staged: Mapping[str, np.ndarray], frame: Frame, place: Where, fresh: bool) -> None:
        for name, values in staged.items():
            if fresh:  # clear repetitions of an earlier chunk, which this step may lack
                values[:, place[1]] = fill_value(values.dtype)
            values[place] = frame.arrays[name]

    @property
    def scalars_full(self) -> bool:
        return self.next % self.schema.scalar_chunk_steps == 0 or self.next == self.schema.grid.timesteps

    @property
    def tensors_full(self) -> bool:
        full = self.next % self.schema.tensor_chunk[1] == 0 or self.next == self.schema.grid.timesteps
        return full and bool(self.unmarked)

    def tensors_wait(self, share: float) -> bool:
        """Whether to write tensors: at least a share of their chunk has arrived, and none of it was written early."""
        size = self.schema.tensor_chunk[1]
        come = (self.next - 1) % size + 1
        again = share > 0 and self.halved
        return bool(self.unmarked) and come >= share * size and not again

    def take_tensors(self) -> Iterator[tuple[str, Where, np.ndarray]]:
        """Array name, place and values of each tensor's chunk; afterwards the marker here counts them as written."""
        steps = self._chunk(self.next - 1, self.schema.tensor_chunk[1])
        rows = slice(self.first_sample, self.first_sample + self.staged)
        for name, values in self.tensors.items():
            values[:, self.next - steps.start :] = fill_value(values.dtype)  # clear the previous chunk's values
            yield name, (*self.cell, rows, steps), values[:, : steps.stop - steps.start]
        for step, *at in self.unmarked:
            place: Where = (slice(self.kept), step, *at)
            self.marker[place] = 3
            self.first_marked = min(self.first_marked, step)
        self.unmarked.clear()
        self.halved = self.next < steps.stop

    def take_scalars(self) -> Iterator[tuple[str, Where, np.ndarray]]:
        """The same for the scalars' chunk, then for each chunk of the marker that changed, in the order of steps."""
        size = self.schema.scalar_chunk_steps
        steps = self._chunk(self.next - 1, size)
        for name, values in self.scalars.items():
            values[:, self.next - steps.start :] = fill_value(values.dtype)
            yield name, (*self.cell, self.rows, steps), values[:, : steps.stop - steps.start]
        for first in range(self.first_marked - self.first_marked % size, self.next, size):
            place = self._chunk(first, size)
            yield WRITTEN.name, (*self.cell, self.rows, place), self.marker[:, place]
        self.first_marked, self.since = self.next, inf

    def _chunk(self, step: int, size: int) -> slice:
        """Steps of the chunk that holds a step; staged steps are always written before the next chunk begins."""
        first = step - step % size
        return slice(first, min(first + size, self.schema.grid.timesteps))
