"""Writing a store as a sampler gives its steps, beside raw files of the same bytes and beside other libraries."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import zarr
from measure import Case, Extent, Result, Work, interleaved, judged, missing, ratios
from others import LIBRARIES, absent, writer
from stores import BATCH, SAMPLES, TENSORS, fill, frames, schema

from gradscope.store import create
from gradscope.store.schema import WRITTEN

LENGTHS = {32: 320, 64: 80, 256: 6}
"""Timesteps by pixels, for about 500 MB."""
MARK = 3
"""The marker of a step whose scalars and tensors are written."""
DEFAULTS = "zarr with its defaults, step by step"


def results(extent: Extent) -> Iterator[Result]:
    """By size of the images; at 32 px also with zarr's defaults, which takes long and is measured on fewer steps."""
    for size, timesteps in extent.size(LENGTHS, {32: 320}).items():
        options = {"timesteps": extent.size(timesteps, max(2, timesteps // 40)), "size": size}
        ways = {"gradscope": "writing:ours", "raw": "writing:raw"}
        cases = {name: Case(make, options) for name, make in ways.items()}
        present = [name for name in LIBRARIES if not absent(name)]
        cases |= {name: Case("writing:by", {**options, "library": name}) for name in present}
        found = interleaved(cases, extent.rounds)
        for name in ("gradscope", *LIBRARIES):
            what = f"writing a store by {name} / its bytes raw: {size} px"
            goal = "<= 3" if name == "gradscope" else ""
            why = absent(name) if name in LIBRARIES else ""
            yield missing(what, why) if why else judged(what, ratios(found[name], found["raw"]), goal)
    options = {"timesteps": extent.size(20, 4), "size": 32}
    found = interleaved(
        {"defaults": Case("writing:defaults", options), "raw": Case("writing:raw", options)}, min(3, extent.rounds)
    )
    yield judged(f"writing a store by {DEFAULTS} / its bytes raw: 32 px", ratios(found["defaults"], found["raw"]))


def ours(timesteps: int, size: int) -> Work:
    """Our writer."""
    of = schema(timesteps, size)
    return _timed(lambda path: fill(path, of))


def by(library: str, timesteps: int, size: int) -> Work:
    """Another library: the same arrays in the same chunks, of which whole ones are put together in memory."""
    of = schema(timesteps, size)

    def write(path: Path) -> float:
        create(path, of, {})
        start = time.perf_counter()
        arrays = (*of.tensors, *of.scalars, WRITTEN)
        writers = {array.name: writer(library, f"{path}/{array.name}") for array in arrays}
        length = {array.name: of.chunks(array)[5] for array in arrays}
        staged = {a.name: np.empty((BATCH, length[a.name], *of.extra(a)), a.dtype) for a in arrays}
        for frame in frames(of):
            rows = slice(frame.first_sample, frame.first_sample + BATCH)
            for name, chunk in staged.items():
                inside = frame.step % length[name]
                chunk[:, inside] = frame.arrays.get(name, MARK)
                if inside + 1 == length[name] or frame.step + 1 == timesteps:
                    steps = slice(frame.step - inside, frame.step + 1)
                    writers[name]((0, 0, 0, 0, rows, steps), chunk[:, : inside + 1])
        return time.perf_counter() - start

    return _timed(write)


def defaults(timesteps: int, size: int) -> Work:
    """Arrays as zarr makes them if only shape and type are given, written step by step."""
    of = schema(timesteps, size)

    def write(path: Path) -> float:
        group = zarr.create_group(path)
        start = time.perf_counter()
        arrays = {
            array.name: group.create_array(array.name, shape=of.shape(array), dtype=array.dtype)
            for array in (*of.tensors, *of.scalars, WRITTEN)
        }
        for frame in frames(of):
            rows = slice(frame.first_sample, frame.first_sample + BATCH)
            for name, array in arrays.items():
                array[0, 0, 0, 0, rows, frame.step] = frame.arrays.get(name, MARK)
        return time.perf_counter() - start

    return _timed(write)


def raw(timesteps: int, size: int) -> Work:
    """The same bytes in raw files of the size of a chunk."""
    of = schema(timesteps, size)
    samples, steps = of.tensor_chunk
    chunk = np.random.default_rng(0).standard_normal((samples, steps, *of.grid.sample_shape), dtype=np.float32)
    count = round(of.bytes() / chunk.nbytes)
    assert count >= len(TENSORS) * SAMPLES // samples

    def write(path: Path) -> float:
        path.mkdir()
        start = time.perf_counter()
        for i in range(count):
            chunk.tofile(path / str(i))
        return time.perf_counter() - start

    return _timed(write)


def _timed(write: Callable[[Path], float]) -> Work:
    """A work that writes into an empty folder, and removes it at once: what waits for the disk would disturb others."""

    def work() -> float:
        with tempfile.TemporaryDirectory() as folder:
            return write(Path(folder) / "run.zarr")

    return work
