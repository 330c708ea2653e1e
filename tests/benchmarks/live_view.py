"""Looking into a store while it is recorded."""

import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measure import Case, Extent, Result, Work, alone, judged
from stores import BATCH, frames, schema

from gradscope.store import StoreWriter, create
from gradscope.store.chunks import Chunks
from gradscope.store.opening import open_arrays

STEP_SECONDS = 0.04
"""Time between two steps, as of a fast sampler."""
SLOW = 0.05
"""Seconds until waiting steps are written in the slow run, whose chunks are then flushed as often as can be."""


class Seen(NamedTuple):
    """What a reader measured."""

    delays: list[float]
    """Seconds from a step's submission until its marker is read."""
    refreshes: list[float]
    """Seconds to read the marker, all scalars and one sample's latest gradient."""


def results(extent: Extent) -> Iterator[Result]:
    """How late and how fast a reader sees a run, and how much more a slow run writes for that."""
    (seen,) = alone(Case("live_view:followed", {"timesteps": extent.size(500, 100)}))
    yield judged("live view: from a step until its scalars are seen", seen.delays, "<= 2.5", "s")
    refreshes = [1e3 * seconds for seconds in seen.refreshes]
    yield judged("live view: reading scalars and a gradient while a run is recorded", refreshes, "<= 100", "ms")
    (written,) = alone(Case("live_view:rewritten", {"timesteps": extent.size(200, 20)}))
    yield judged("live view: bytes that a slow run writes / bytes of its store", [written], "<= 2.5")


def followed(timesteps: int) -> Work:
    """A run of 32 px in a thread, and a reader beside it."""
    of = schema(timesteps)

    def work() -> Seen:
        path = Path(tempfile.mkdtemp()) / "run.zarr"
        create(path, of, {})
        given: list[float] = []
        thread = threading.Thread(target=lambda: _sample(path, timesteps, given))
        thread.start()
        group = open_arrays(path)
        arrays = {name: Chunks(path, group[name]) for name in ("written", "gradient", *_scalars(timesteps))}
        seen, done = Seen([], []), 0
        while thread.is_alive():
            start = time.perf_counter()
            marker = arrays["written"].select((0, 0, 0, 0, 0))
            now = int((marker > 0).sum())
            seen.delays.extend(start - at for at in given[done:now])
            done = now
            for name in _scalars(timesteps):
                arrays[name].select((0, 0, 0, 0))
            if (marker == 3).any():
                latest = int(np.flatnonzero(marker == 3)[-1])
                arrays["gradient"].select((0, 0, 0, 0, 0, latest))
                seen.refreshes.append(time.perf_counter() - start)
            time.sleep(0.05)
        return seen

    return work


def _scalars(timesteps: int) -> list[str]:
    return [array.name for array in schema(timesteps).scalars]


def _sample(path: Path, timesteps: int, given: list[float]) -> None:
    """Submit the steps of the first block, at a sampler's pace."""
    of = schema(timesteps)
    writer = StoreWriter(path, of)
    for frame in frames(of):
        if frame.first_sample:
            break
        given.append(time.perf_counter())
        writer.submit(frame)
        time.sleep(STEP_SECONDS)
    writer.close()


def rewritten(timesteps: int) -> Work:
    """A run whose every step waits longer than the writer lets it."""
    of = schema(timesteps)

    def work() -> float:
        path = Path(tempfile.mkdtemp()) / "run.zarr"
        create(path, of, {})
        writer = StoreWriter(path, of, flush_seconds=SLOW)
        for frame in frames(of):
            if frame.first_sample:
                break
            writer.submit(frame)
            time.sleep(1.2 * SLOW)
        writer.close()
        return writer.bytes / (of.bytes() * BATCH / of.grid.samples)

    return work
