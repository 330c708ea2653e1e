"""The steps of a block that wait until their chunks are full."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from gradscope.store.chunks import Where
from gradscope.store.schema import WRITTEN, Array, Schema, fill_value


@dataclass
class Frame:
    """The values of one step of one block, in host memory.

    Arrays have the block's samples first; tensors only the samples whose tensors are kept. ``wait()`` returns when the
    arrays are filled, ``release()`` gives them back.
    """

    cell: tuple[int, ...]
    first_sample: int
    step: int
    arrays: Mapping[str, np.ndarray]
    wait: Callable[[], None] = lambda: None
    release: Callable[[], None] = lambda: None
    repeat: int = 0
    """Number of the repetition of this step, where the store has a dimension `repeat`."""


class Staging:
    """The steps of one block whose chunks are not yet full: these are written from here, whole.

    A tensor's chunk is written when it is full, and once before, when half of it has come and waits: however slow the
    sampler is, no more than twice the tensors' bytes are written. Scalars are few, and written whenever they wait.
    """

    def __init__(self, schema: Schema, cell: tuple[int, ...], first_sample: int, samples: int) -> None:
        self.schema, self.cell, self.first_sample = schema, cell, first_sample
        self.rows = slice(first_sample, first_sample + samples)
        self.kept = schema.kept_samples(first_sample, samples)
        rows = schema.stored_samples
        self.staged = min(samples, -(-self.kept // rows) * rows)  # of tensors: whole objects
        self.scalars = {a.name: self._empty(a, samples, schema.scalar_chunk_steps) for a in schema.scalars}
        self.tensors = {
            a.name: self._empty(a, self.staged, schema.tensor_chunk[1]) for a in schema.tensors if self.kept
        }
        self.marker = np.zeros((samples, schema.grid.timesteps, *schema.repeats), WRITTEN.dtype)
        self.next = 0
        """The step after the last that came."""
        self.waiting = False
        """Whether there are steps whose scalars are not written,"""
        self.unmarked: list[tuple[int, ...]] = []
        """steps (and repetitions) whose tensors are not,"""
        self.first_marked = 0
        """and the first step whose marker is not that here."""
        self.halved = False
        """The chunk that is being filled was written once."""

    def _empty(self, array: Array, samples: int, steps: int) -> np.ndarray:
        shape = (samples, steps, *self.schema.repeats, *self.schema.extra(array))
        return np.full(shape, fill_value(array.dtype), dtype=array.dtype)

    def put(self, frame: Frame) -> None:
        schema, step = self.schema, frame.step
        at: tuple[int, ...] = (frame.repeat,) if schema.repeats else ()
        fresh = bool(at) and step >= self.next
        self._put(self.scalars, frame, (slice(None), step % schema.scalar_chunk_steps, *at), fresh)
        if self.tensors and schema.keeps_tensor(step):
            self._put(self.tensors, frame, (slice(self.kept), step % schema.tensor_chunk[1], *at), fresh)
            self.unmarked.append((step, *at))
        place: Where = (slice(None), step, *at)
        self.marker[place] = 1
        self.first_marked = min(self.first_marked, step)
        self.next, self.waiting = step + 1, True

    def _put(self, staged: Mapping[str, np.ndarray], frame: Frame, place: Where, fresh: bool) -> None:
        for name, values in staged.items():
            if fresh:  # what an earlier chunk left in repetitions that this step may not have
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
        """Whether at least a share of the tensors' chunk has come, and it was not yet written at half."""
        size = self.schema.tensor_chunk[1]
        come = (self.next - 1) % size + 1
        again = share > 0 and self.halved
        return bool(self.unmarked) and come >= share * size and not again

    def take_tensors(self) -> Iterator[tuple[str, Where, np.ndarray]]:
        """Array name, place and values of the tensors' chunk; afterwards the marker here says that they are there."""
        steps = self._chunk(self.next - 1, self.schema.tensor_chunk[1])
        rows = slice(self.first_sample, self.first_sample + self.staged)
        for name, values in self.tensors.items():
            values[:, self.next - steps.start :] = fill_value(values.dtype)  # and not what was there before
            yield name, (*self.cell, rows, steps), values[:, : steps.stop - steps.start]
        for step, *at in self.unmarked:
            place: Where = (slice(self.kept), step, *at)
            self.marker[place] = 3
            self.first_marked = min(self.first_marked, step)
        self.unmarked.clear()
        self.halved = self.next < steps.stop

    def take_scalars(self) -> Iterator[tuple[str, Where, np.ndarray]]:
        """The same of the scalars' chunk, and then of the marker's chunks that changed, in the order of the steps."""
        size = self.schema.scalar_chunk_steps
        steps = self._chunk(self.next - 1, size)
        for name, values in self.scalars.items():
            values[:, self.next - steps.start :] = fill_value(values.dtype)
            yield name, (*self.cell, self.rows, steps), values[:, : steps.stop - steps.start]
        for first in range(self.first_marked - self.first_marked % size, self.next, size):
            place = self._chunk(first, size)
            yield WRITTEN.name, (*self.cell, self.rows, place), self.marker[:, place]
        self.first_marked, self.waiting = self.next, False

    def _chunk(self, step: int, size: int) -> slice:
        """The steps of the chunk to which a step belongs: no flush is ever put off beyond its end."""
        first = step - step % size
        return slice(first, min(first + size, self.schema.grid.timesteps))
