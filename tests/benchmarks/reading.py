"""Reading a store, beside raw files of the same bytes and beside other libraries."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import xarray as xr
from measure import Case, Extent, Result, Work, Worker, alone, interleaved, judged, missing, ratios
from others import LIBRARIES, absent, reader
from stores import chunk_files, forget, read_raw

import gradscope
from gradscope.analysis.tensors import from_tensors
from gradscope.store import chunks as store_chunks
from gradscope.store.chunks import Chunks
from gradscope.store.opening import open_arrays

LENGTHS = {32: 1000, 64: 250, 256: 16}
"""Timesteps by pixels, for about 1.5 GB."""
SAMPLE = 40
WAYS = {
    "the chunks, as the dashboard does": "<= 5",
    "xarray.open_zarr(chunks=None)": "<= 20",
    "xarray.open_zarr, through dask": "<= 35",
    "gradscope.open, through dask": "<= 35",
    **dict.fromkeys(LIBRARIES, ""),
}
"""Ways to read one sample's trajectory, each with its goal."""


def results(extent: Extent) -> Iterator[Result]:
    """One sample's trajectory by size of the images; checksums and recomputed cosines at 32 px."""
    with tempfile.TemporaryDirectory() as folder:
        for size, full in extent.size(LENGTHS, {32: 1000}).items():
            here, timesteps = f"{folder}/{size}.zarr", extent.size(full, max(4, full // 40))
            alone(Case("stores:make", {"path": here, "timesteps": timesteps, "size": size}))
            yield from trajectories(here, f"{size} px, {timesteps:,} timesteps", extent.rounds)
        here = f"{folder}/32.zarr"
        cases = {str(checks): Case("reading:gradients", {"path": here, "checks": checks}) for checks in (True, False)}
        found = interleaved(cases, extent.rounds)
        what = "reading all gradients chunk by chunk, checking checksums / not checking"
        yield judged(what, ratios(found["True"], found["False"]))
        yield from recomputed(here, extent.rounds)


def trajectories(path: str, about: str, rounds: int) -> Iterator[Result]:
    """One sample's trajectory by each of `WAYS`, from the page cache."""
    present = [way for way in WAYS if way not in LIBRARIES or not absent(way)]
    cases = {way: Case("reading:trajectory", {"path": path, "way": way}) for way in ("raw", *present)}
    found = interleaved(cases, 2 * rounds)
    for way, goal in WAYS.items():
        what = f"reading one sample's trajectory by {way} / its bytes raw: {about}"
        if way not in found:
            yield missing(what, absent(way))
            continue
        detail = f"{1e3 * sum(found[way]) / len(found[way]):.1f} ms"
        yield judged(what, ratios(found[way], found["raw"]), goal, detail=detail)


def trajectory(path: str, way: str) -> Work:
    """Reading the gradient of one sample along t, in a store that is open."""
    read = _ways(path, way)

    def work() -> float:
        start = time.perf_counter()
        read()
        return time.perf_counter() - start

    return work


def _ways(path: str, way: str) -> Callable[[], object]:
    where = (0, 0, 0, 0, SAMPLE)
    if way == "raw":
        file = Path(tempfile.mkdtemp()) / "raw"
        gradscope.open(path)["gradient"].isel(sample=SAMPLE).values.tofile(file)
        return lambda: np.fromfile(file, dtype=np.float32)
    if way in LIBRARIES:
        read = reader(way, f"{path}/gradient")
        return lambda: read(where)
    if way.startswith("the chunks"):
        found = Chunks(path, open_arrays(path)["gradient"])
        return lambda: found.select(where)
    if way.startswith("gradscope"):
        ds = gradscope.open(path)
    else:
        ds = xr.open_zarr(path, chunks={} if "dask" in way else None)
    return lambda: ds["gradient"].isel(sample=SAMPLE).values


def gradients(path: str, checks: bool) -> Work:
    """Reading all gradients chunk by chunk from the page cache, with or without checking checksums."""
    found = Chunks(path, open_arrays(path)["gradient"])

    def work() -> float:
        start = time.perf_counter()
        with patch.object(store_chunks, "is_sum_of", store_chunks.is_sum_of if checks else lambda *chunk: True):
            for index in found:
                found.read(index)
        return time.perf_counter() - start

    return work


def recomputed(path: str, rounds: int) -> Iterator[Result]:
    """The cosine of successive gradients from stored tensors: its rate beside that of the disk, and its memory."""
    cases = {name: Case(f"reading:{name}", {"path": path}) for name in ("disk", "cosines")}
    found = interleaved(cases, rounds)
    what = "rate of recomputing cosines / of reading the disk, cold"
    yield judged(what, ratios(found["disk"], found["cosines"]), ">= 0.5")
    with Worker(cases["cosines"]) as worker:
        worker.run()
        yield judged("memory of recomputing cosines", [worker.grown / 1e6], "<= 1000", "MB")


def cosines(path: str) -> Work:
    """Recomputing cosines."""
    ds = gradscope.open(path)
    return _cold(path, lambda: from_tensors(ds, ["gradient_cosine"]))


def disk(path: str) -> Work:
    """Reading the same chunk files raw, one after the other."""
    files = chunk_files(path, "gradient")
    return _cold(path, lambda: read_raw(files))


def _cold(path: str, act: Callable[[], object]) -> Work:
    files = chunk_files(path, "gradient")

    def work() -> float:
        forget(files)
        start = time.perf_counter()
        act()
        return time.perf_counter() - start

    return work
