"""Write a store: one thread fills the arrays, whole chunks at a time, and sets the marker last.

Scalars that have waited for some seconds are written before their chunk is full, so that a run can be watched while it
is recorded. There `written` is 1; it becomes 3 when the tensors' chunk is written. A chunk that is written again is
written whole, from memory.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import Any

import numpy as np
import zarr

from gradscope.errors import GradscopeError
from gradscope.store.chunks import Chunks, Where
from gradscope.store.locations.location import ROOT, StorePath, locate, reason, writing
from gradscope.store.locations.replacing import Replacing
from gradscope.store.schema import WRITTEN, Schema
from gradscope.store.staging import Frame, Staging

FLUSH_SECONDS = 2.0
"""Longest time that a step waits until it is written into a folder."""
FAR_FLUSH_SECONDS = 30.0
"""Longest time that a step waits until it is written into an object store."""
_EMPTY_TOO: Any = {"write_empty_chunks": True}
OPEN = 64
"""Largest number of blocks that are recorded at the same time."""


Block = tuple[tuple[int, ...], int]
"""Cell and first sample of a block."""


class StoreWriter:
    """Writes frames in a thread, whole chunks at a time, in the order of `submit`.

    Submit the steps of a block in order; steps may be left out. Several blocks may be open at once. When
    another block begins, those with their last step are closed, or the oldest one if `OPEN` are open; a step of a
    closed block is an error. An error in the thread is raised by the next `submit`, or by `close`. Memory holds one
    chunk of timesteps of each open block: about 1 MB per tensor and sample.

    Parameters
    ----------
    where
        The store.
    schema
        Its arrays.
    inspect
        Called in the thread with each frame before it is written.
    durable
        Flush data to disk (fsync) before their marker is set. The store's metadata are on the disk if it was created
        so, too.
    flush_seconds
        Longest time that a step waits until it is written; default: `FLUSH_SECONDS` or `FAR_FLUSH_SECONDS`.
    """

    def __init__(
        self,
        where: StorePath,
        schema: Schema,
        inspect: Callable[[Frame], None] = lambda frame: None,
        durable: bool = False,
        flush_seconds: float | None = None,
    ) -> None:
        self._location = location = locate(where)
        self._schema, self._inspect = schema, inspect
        near = location.path is not None
        usual = FLUSH_SECONDS if near else FAR_FLUSH_SECONDS
        self._flush_seconds = usual if flush_seconds is None else flush_seconds
        self._durable = durable and near
        self._store = location.zarr if location.path is None else Replacing(location.path, durable=durable)
        self._chunks = self._opened()
        self._open: dict[Block, Staging] = {}
        self._closed: set[Block] = set()
        self._frames: queue.SimpleQueue[Frame | Callable[[], None] | None] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self.bytes = 0
        """Bytes written, before compression."""
        self.seconds = 0.0
        """Seconds spent writing."""
        self._thread = threading.Thread(target=self._run, name="gradscope-writer", daemon=True)
        self._thread.start()

    def forget(self, cell: tuple[int, ...], first_sample: int, samples: int) -> None:
        """Mark a block as not written, before it is recorded again."""
        self._calls(lambda: self._forget(cell, first_sample, samples))

    def grow(self, schema: Schema) -> None:
        """Take a schema of a grid that has further cells or samples; the store has grown already."""

        def take() -> None:
            self._schema, self._chunks = schema, self._opened()

        self._calls(take)

    def _calls(self, call: Callable[[], None]) -> None:
        """Call a function in the thread, after the frames before it, and wait; raises an error of the thread."""
        done = threading.Event()

        def run() -> None:
            try:
                if self._error is None:
                    call()
            finally:
                done.set()

        if self._error is None and self._thread.is_alive():
            self._frames.put(run)
            done.wait()
        self.check()

    def _opened(self) -> dict[str, Chunks]:
        with writing(self._location):
            group = zarr.open_group(self._store, mode="r+")
            return {
                name: Chunks(self._location, _array(group, name).with_config(_EMPTY_TOO), self._durable)
                for name in self._schema.names
            }

    def _forget(self, cell: tuple[int, ...], first_sample: int, samples: int) -> None:
        self._open.pop((cell, first_sample), None)
        self._closed.discard((cell, first_sample))
        rows: Where = (*cell, slice(first_sample, first_sample + samples))
        marker = self._chunks[WRITTEN.name]
        if (values := marker.select(rows)).any():
            marker.write(rows, np.zeros_like(values))

    def submit(self, frame: Frame) -> None:
        """Queue a frame for writing; raises an earlier error of the thread."""
        if self._error is not None:
            frame.release()
            self.check()
        self._frames.put(frame)

    def submit_final(self, cell: tuple[int, ...], first_sample: int, finals: Mapping[str, np.ndarray]) -> None:
        """Queue final arrays of a block, by name, for writing."""

        def write() -> None:
            for name, values in finals.items() if self._error is None else ():
                self._write(name, (*cell, slice(first_sample, first_sample + len(values))), values)

        self.check()
        self._frames.put(write)

    def check(self) -> None:
        """Raise GradscopeError if writing has failed in the thread."""
        if self._error is None:
            return
        if self._location.path is not None and not (self._location.path / ROOT).exists():
            raise GradscopeError(f"{self._location} was removed while it was recorded") from self._error
        raise GradscopeError(f"{self._location} could not be written: {reason(self._error)}") from self._error

    def close(self) -> None:
        """Write the remaining frames, and end the thread."""
        if self._thread.is_alive():
            self._frames.put(None)
            self._thread.join()
        self.check()

    def _run(self) -> None:
        while (item := self._next()) is not None:
            try:
                if callable(item):
                    item()
                elif self._error is None:
                    item.wait()
                    self._inspect(item)
                    self._accept(item)
            except BaseException as error:  # re-raised in the sampler's thread
                self._error = error
            finally:
                if not callable(item):
                    item.release()
        self._flush_safely(0.0)

    def _next(self) -> Frame | Callable[[], None] | None:
        """The next frame; steps that wait too long in the meantime are written."""
        while True:
            try:
                return self._frames.get(timeout=self._patience())
            except queue.Empty:
                self._flush_safely(0.5)

    def _patience(self) -> float | None:
        """Seconds until staged steps must be written; None if there are none."""
        oldest = min((staging.since for staging in self._open.values()), default=inf)
        if oldest == inf or self._error is not None:
            return None
        return max(0.0, oldest + self._flush_seconds - time.monotonic())

    def _flush_safely(self, share: float) -> None:
        try:
            for staging in self._open.values():
                if self._error is None:
                    self._flush(staging, share)
        except BaseException as error:
            self._error = error

    def _accept(self, frame: Frame) -> None:
        staging = self._staging(frame)
        if staging.skips_tensors(frame.step):
            self._flush(staging, 0.0)
        elif staging.skips_scalars(frame.step):
            self._flush(staging, 1.0)
        staging.put(frame)
        for array in self._schema.finals:
            if array.name in frame.arrays:
                self._write(array.name, (*frame.cell, staging.rows), frame.arrays[array.name])
        if staging.tensors_full:
            self._refuse_removed()
            self._write_all(staging.take_tensors())
        if self._patience() == 0:
            for waiting in self._open.values():
                self._flush(waiting, 0.5)
        elif staging.scalars_full:
            self._flush(staging, 1.0)

    def _staging(self, frame: Frame) -> Staging:
        """The staging of a frame's block."""
        block = (frame.cell, frame.first_sample)
        if block in self._open:
            return self._open[block]
        if block in self._closed:
            raise GradscopeError(
                f"a step of cell {block[0]}, sample {block[1]} came after its block was closed: that happens after "
                f"its last step, and at most {OPEN} are recorded at the same time"
            )
        ended = [other for other, staging in self._open.items() if staging.ended]
        for other in ended or [*self._open][: len(self._open) - OPEN + 1]:
            self._flush(self._open[other], 0.0)
            del self._open[other]
            self._closed.add(other)
        samples = len(frame.arrays[self._schema.scalars[0].name])
        self._open[block] = Staging(self._schema, frame.cell, frame.first_sample, samples)
        return self._open[block]

    def _flush(self, staging: Staging, share: float) -> None:
        """Write waiting steps: tensors if this share of their chunk has arrived, then scalars, then the marker."""
        if not (staging.waiting or (staging.unmarked and not share)):
            return
        self._refuse_removed()
        if staging.tensors_wait(share):
            self._write_all(staging.take_tensors())
        self._write_all(staging.take_scalars())

    def _refuse_removed(self) -> None:
        if self._location.path is not None and not (self._location.path / ROOT).exists():
            raise FileNotFoundError("it was removed")  # zarr would create its folders again

    def _write_all(self, pieces: Iterator[tuple[str, Where, np.ndarray]]) -> None:
        for piece in pieces:
            self._write(*piece)

    def _write(self, name: str, where: tuple, values: np.ndarray) -> None:
        start = time.perf_counter()
        self._chunks[name].write(where, values)
        self.seconds += time.perf_counter() - start
        self.bytes += values.nbytes


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    assert isinstance(array, zarr.Array)
    return array
