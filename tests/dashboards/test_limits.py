"""Stores whose metadata or chunks claim more than a server can hold: refused in one line, without allocating it."""

import json
from math import prod

import hostile_store
import numpy as np
import pytest
import small_store
import sound_store
from google_crc32c import value as crc32c
from numcodecs import blosc

from dashboards.data import limits, open_run
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from dashboards.images.tiles import Tiles
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS, open_store

pytestmark = pytest.mark.usefixtures("bounded")
BOMB = 800_000_000
"""Bytes that a chunk of a few kB claims to hold."""
LARGE = {"height": 4096, "width": 4096}
ONE = dict.fromkeys((*CELL_DIMS, "sample", "timestep"), 1)


@pytest.fixture
def claim(copy):
    """Makes a store that claims these lengths: ``claim(lengths, chunks)``."""
    return lambda lengths, chunks=None: hostile_store.claiming(copy, lengths, chunks)


@pytest.mark.parametrize(
    ("lengths", "reason"),
    [
        ({"classifier": 1_000_000}, "claims 8,000,000 cells; the dashboard shows up to 4,096"),
        ({"classifier": 1000, "stabilizer": 1000}, "claims 4,000,000 cells"),
        ({"sample": 1_000_000}, "claims 1,000,000 samples; the dashboard shows up to 100,000"),
        ({"timestep": 1_000_000}, "claims 1,000,000 timesteps"),
        ({"class": 1_000_000}, "claims 1,000,000 classes"),
        ({"replicate": 10**8}, "chunks; the dashboard shows up to 1,048,576"),
        ({"sample": 10**15}, "array "),
        ({"height": 10**7, "width": 10**7}, "pieces"),
    ],
)
def test_a_store_that_claims_too_much_is_refused_beside_the_others(claim, stored, lengths, reason):
    library = Library([claim(lengths), stored])
    broken, usable = library.runs.values()
    assert isinstance(broken, BrokenRun)
    assert reason in broken.reason
    assert "s.zarr" in broken.reason
    assert np.isfinite(usable.scalars("log_prob")["log_prob"]).all()


def test_data_that_are_read_at_once_are_bounded(claim, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", 10_000)
    path = claim({})
    with pytest.raises(GradscopeError, match="claims .* kB that are read at once; the dashboard shows up to 10 kB"):
        OpenRun(path)


def test_diagnostics_are_read_while_they_fit_into_memory(stored, monkeypatch):
    each = 16 * 16 * 10 * 8  # bytes: cells, samples, timesteps, float64
    monkeypatch.setattr(open_run, "MEMORY", limits.check_store(stored) + 2 * each)
    run = OpenRun(stored)
    run.scalars("gradient_norm", "log_prob")
    with pytest.raises(
        GradscopeError, match=r"gradient_cosine takes 20.5 kB; .* holds up to 41 kB of a store's diagnos"
    ):
        run.scalars("gradient_cosine")
    assert run.scalars("gradient_norm")["gradient_norm"].size == 16 * 16 * 10


def test_tensors_that_are_too_large_are_not_drawn(claim):
    run = OpenRun(claim(LARGE, LARGE | ONE))
    with pytest.raises(GradscopeError, match="a picture of 805,306,368 elements; at most 67,108,864"):
        Tiles().frame(run, 0, 0, [0, 1, 2, 3], "cell")
    with pytest.raises(GradscopeError, match="a picture of 402,653,184 elements"):
        Tiles().thumbnails(run, 0, 0, 7)


def test_long_names_and_metadata_are_refused(tmp_path, stored, monkeypatch):
    long = small_store.evaluated().assign_coords(classifier=["x" * 201, "y"])
    with pytest.raises(GradscopeError, match="classifier: a name has at most 200 characters, got 201"):
        OpenRun(small_store.save(long, tmp_path / "long.zarr"))
    monkeypatch.setattr(limits, "METADATA", 1000)
    with pytest.raises(GradscopeError, match="has metadata of .* kB; the dashboard shows up to 1 kB"):
        OpenRun(stored)


READING = {
    "classifier": lambda path: OpenRun(path),
    "judge_class": lambda path: OpenRun(path),
    "label": lambda path: OpenRun(path).findings(),
    "written": lambda path: OpenRun(path),
    "gradient_norm": lambda path: OpenRun(path).scalars("gradient_norm"),
    "confusion": lambda path: OpenRun(path).scalars("gradient_norm"),
    "image": lambda path: Tiles().thumbnails(OpenRun(path), 0, 0, 7),
    "gradient": lambda path: Tiles().frame(OpenRun(path), 0, 0, [0], "cell"),
    "gradient_cosine": lambda path: open_store(path)["gradient_cosine"].values,
    "transfer_ratio": lambda path: open_store(path)["transfer_ratio"].values,
}


@pytest.mark.parametrize("name", READING)
def test_the_content_of_a_chunk_is_bounded_by_the_metadata(copy, name):
    path = hostile_store.replaced(copy, name, hostile_store.zstd_of_zeros(BOMB))
    with pytest.raises(
        GradscopeError, match=f"{name}/c/.* is damaged: it (decodes to {BOMB} bytes, wanted|has more than)"
    ):
        READING[name](path)


def test_a_chunk_that_does_not_state_its_size_is_refused(copy):
    path = hostile_store.replaced(copy, "written", hostile_store.zstd_of_zeros(BOMB, sized=False)[:500])
    with pytest.raises(GradscopeError, match="its header does not give its decoded size"):
        OpenRun(path)


def test_a_file_with_holes_is_not_read_to_its_end(copy):
    for file in (copy / "written" / "c").rglob("[0-9]"):
        if file.is_file():
            with file.open("r+b") as content:
                content.truncate(2**33)
    with pytest.raises(GradscopeError, match="it has more than .* bytes"):
        OpenRun(copy)


@pytest.mark.parametrize("sharded", [False, True])
def test_tensors_in_blosc_and_in_shards_are_bounded(tmp_path, sharded):
    path = sound_store.make(tmp_path / "s.zarr", sound_store.Kind(codec="lz4", sharded=sharded))
    bomb = blosc.compress(bytes(64), b"lz4", 1)
    bomb = bomb[:4] + BOMB.to_bytes(4, "little") + bomb[8:]
    bomb += crc32c(bomb).to_bytes(4, "little")
    if sharded:
        codec = json.loads((path / "gradient" / "zarr.json").read_text())
        outer = codec["chunk_grid"]["configuration"]["chunk_shape"]
        inner = codec["codecs"][0]["configuration"]["chunk_shape"]
        count = prod(a // b for a, b in zip(outer, inner, strict=True))
        index = np.array([[0, len(bomb)]] * count, "<u8").tobytes()
        bomb += index + crc32c(index).to_bytes(4, "little")
    hostile_store.replaced(path, "gradient", bomb)
    ds = open_store(path)["gradient"]
    for part in (ds, ds.isel(sample=0, timestep=0)):
        with pytest.raises(GradscopeError, match=f"it decodes to {BOMB} bytes"):
            part.load()


def test_the_sizes_of_real_runs_are_accepted(claim):
    """Ten times the samples that the benchmarks record, and as many timesteps."""
    many = limits.check_store(claim({"sample": 640, "timestep": 1000}))
    assert small_store.SAMPLES * small_store.TIMESTEPS < many < limits.MEMORY // 10
