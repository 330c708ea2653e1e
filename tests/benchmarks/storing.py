"""Writing and reading stores, beside raw files of the same bytes."""

import os
import resource
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from measure import Work

import gradscope
from gradscope.analysis.tensors import from_tensors
from gradscope.store import Array, Frame, Grid, Schema, StoreWriter, create
from gradscope.store.chunks import Chunks
from gradscope.store.opening import open_arrays
from probes.variable import IMAGE_DIMS

CELL = {"classifier": ("a",), "classifier_input": ("x_t",), "stabilizer": ("none",), "guidance_scale": (1.0,)}
SAMPLES = 64


def schema(timesteps: int, size: int = 32) -> Schema:
    """Gradient and update of 64 samples, and some scalars."""
    t = np.linspace(999, 0, timesteps).astype(int)
    grid = Grid(
        **CELL,
        label=np.zeros(SAMPLES, dtype=int),
        seed=np.arange(SAMPLES),
        timestep=t,
        alphas_cumprod=np.linspace(0, 1, timesteps),
        sigma=np.linspace(1, 0, timesteps),
        sample_shape=(3, size, size),
        batch_size=32,
    )
    tensors = [Array(name, "tensor", {}, dims=IMAGE_DIMS) for name in ("gradient", "update")]
    scalars = [Array(name, "scalar", {}) for name in ("gradient_norm", "gradient_cosine", "log_prob")]
    return Schema(grid, (*tensors, *scalars), tensor_samples=SAMPLES)


def fill(path: Path, of: Schema) -> float:
    """Write a store step by step as a sampler does; return the seconds from the first step to the last byte."""
    rng = np.random.default_rng(0)
    size = of.grid.sample_shape
    tensors = rng.standard_normal((2, 32, *size), dtype=np.float32)
    numbers = rng.standard_normal(32, dtype=np.float32)
    create(path, of, {})
    start = time.perf_counter()
    writer = StoreWriter(path, of)
    for first in range(0, SAMPLES, 32):
        for step in range(of.grid.timesteps):
            arrays = {"gradient": tensors[0], "update": tensors[1]}
            arrays |= {array.name: numbers for array in of.scalars if array.name != "written"}
            writer.submit(Frame((0, 0, 0, 0), first, step, arrays))
    writer.close()
    return time.perf_counter() - start


def stored(timesteps: int) -> Work:
    """Writing a store."""
    folder, of = tempfile.TemporaryDirectory(), schema(timesteps)

    def work() -> float:
        path = Path(folder.name) / "run.zarr"
        shutil.rmtree(path, ignore_errors=True)
        os.sync()
        return fill(path, of)

    return work


def raw(timesteps: int) -> Work:
    """Writing the same bytes to raw files of the size of a chunk."""
    folder, of = tempfile.TemporaryDirectory(), schema(timesteps)
    samples, steps = of.tensor_chunk
    chunk = np.random.default_rng(0).standard_normal((samples, steps, *of.grid.sample_shape), dtype=np.float32)
    count = round(of.bytes() / chunk.nbytes)

    def work() -> float:
        for file in Path(folder.name).iterdir():
            file.unlink()
        os.sync()
        start = time.perf_counter()
        for i in range(count):
            chunk.tofile(f"{folder.name}/{i}")
        return time.perf_counter() - start

    return work


def make(path: str, timesteps: int) -> Work:
    """Making the store that the other cases read."""
    return lambda: fill(Path(path), schema(timesteps))


def trajectory(path: str, sample: int = 40, cold: bool = False) -> Work:
    """Reading the gradient of one sample along t, in a store that is open."""
    return _reading(gradscope.open(path), path, sample, cold)


def zarr_trajectory(path: str, dask: bool, sample: int = 40, cold: bool = False) -> Work:
    """The same by plain xarray, through dask or not."""
    return _reading(xr.open_zarr(path, chunks={} if dask else None), path, sample, cold)


def chunk_trajectory(path: str, sample: int = 40) -> Work:
    """The same from the chunks themselves, as the dashboard reads them."""
    chunks = Chunks(path, open_arrays(path)["gradient"])

    def work() -> float:
        start = time.perf_counter()
        chunks.select((0, 0, 0, 0, sample))
        return time.perf_counter() - start

    return work


def _reading(ds: xr.Dataset, path: str, sample: int, cold: bool) -> Work:
    files = _chunks(path, "gradient") + _chunks(path, "written")

    def work() -> float:
        _forget(files if cold else [])
        start = time.perf_counter()
        ds["gradient"].isel(sample=sample).values  # noqa: B018
        return time.perf_counter() - start

    return work


def raw_trajectory(path: str, sample: int = 40, cold: bool = False) -> Work:
    """Reading the same number of bytes from one raw file."""
    file = Path(path).parent / f"{Path(path).name}.sample"
    gradscope.open(path)["gradient"].isel(sample=sample).values.tofile(file)

    def work() -> float:
        _forget([file] if cold else [])
        start = time.perf_counter()
        np.fromfile(file, dtype=np.float32)
        return time.perf_counter() - start

    return work


def cosines(path: str, cold: bool = True) -> Work:
    """Recomputing the cosine of successive gradients from stored tensors."""
    ds, files = gradscope.open(path), _chunks(path, "gradient")

    def work() -> float:
        _forget(files if cold else [])
        start = time.perf_counter()
        from_tensors(ds, ["gradient_cosine"])
        return time.perf_counter() - start

    return work


def disk_read(path: str, cold: bool = True) -> Work:
    """Reading the same chunk files raw, one after the other."""
    files = _chunks(path, "gradient")
    buffer = np.empty(max(file.stat().st_size for file in files), dtype=np.uint8)

    def work() -> float:
        _forget(files if cold else [])
        start = time.perf_counter()
        for file in files:
            with open(file, "rb", buffering=0) as opened:
                opened.readinto(buffer.data)
        return time.perf_counter() - start

    return work


def cosines_memory(path: str) -> Work:
    """Bytes by which the peak of resident memory grows while the cosine is recomputed."""
    ds = gradscope.open(path)

    def work() -> float:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        from_tensors(ds, ["gradient_cosine"])
        return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)

    return work


def _chunks(path: str, name: str) -> list[Path]:
    return sorted((Path(path) / name).glob("c.*"))


def _forget(files: list[Path]) -> None:
    """Drop files from the page cache."""
    if files:
        os.sync()
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)
