"""The store that writing and reading are measured on, and its files."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measure import Work
from numpy.typing import NDArray

from gradscope.store import Array, Frame, Grid, Schema, StoreWriter, create
from probes.variable import IMAGE_DIMS

CELL = {"classifier": ("a",), "classifier_input": ("x_t",), "stabilizer": ("none",), "guidance_scale": (1.0,)}
SAMPLES, BATCH = 64, 32
TENSORS = ("gradient", "update")


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
        batch_size=BATCH,
    )
    tensors = [Array(name, "tensor", {}, dims=IMAGE_DIMS) for name in TENSORS]
    scalars = [Array(name, "scalar", {}) for name in ("gradient_norm", "gradient_cosine", "log_prob")]
    return Schema(grid, (*tensors, *scalars), tensor_samples=SAMPLES)


def frames(of: Schema) -> Iterator[Frame]:
    """Every step of every block, in the order of a sampler. The tensors are noise, which cannot be compressed."""
    rng = np.random.default_rng(0)
    tensors = rng.standard_normal((len(TENSORS), BATCH, *of.grid.sample_shape), dtype=np.float32)
    numbers = rng.standard_normal(BATCH, dtype=np.float32)
    arrays: dict[str, NDArray] = dict(zip(TENSORS, tensors, strict=True))
    arrays |= {array.name: numbers for array in of.scalars}
    for first in range(0, SAMPLES, BATCH):
        for step in range(of.grid.timesteps):
            yield Frame((0, 0, 0, 0), first, step, arrays)


def fill(path: str | Path, of: Schema) -> float:
    """Write a store; return the seconds from the first step to the last byte."""
    create(path, of, {})
    start = time.perf_counter()
    writer = StoreWriter(path, of)
    for frame in frames(of):
        writer.submit(frame)
    writer.close()
    return time.perf_counter() - start


def make(path: str, timesteps: int, size: int = 32) -> Work:
    """Making a store that other cases read."""
    return lambda: fill(path, schema(timesteps, size))


def chunk_files(path: str | Path, name: str) -> list[Path]:
    """The chunks of one array."""
    return sorted((Path(path) / name).glob("c.*"))


def forget(files: list[Path]) -> None:
    """Drop files from the page cache."""
    for file in files:
        opened = os.open(file, os.O_RDONLY)
        os.fdatasync(opened)  # pages that are not on the disk cannot be dropped
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)


def read_raw(files: list[Path]) -> None:
    """Read files one after the other, into the same memory."""
    buffer = np.empty(max(file.stat().st_size for file in files), dtype=np.uint8)
    for file in files:
        with open(file, "rb", buffering=0) as opened:
            opened.readinto(buffer.data)
