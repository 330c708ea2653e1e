"""Stores whose metadata claim more than a server can hold: refused in words, without making anything of it."""

import json
from math import prod

import hostile_store
import numpy as np
import pytest
import small_store
import sound_store
from google_crc32c import value as crc32c
from numcodecs import blosc

from dashboards.data import limits, recorded
from dashboards.data.library import Broken, Library, Recorded
from dashboards.images.tiles import Images
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS, open_store

pytestmark = pytest.mark.usefixtures("bounded")
BOMB = 800_000_000
"""Bytes that a chunk of some kB claims to hold."""
LARGE = {"height": 4096, "width": 4096}
ONE = dict.fromkeys((*CELL_DIMS, "sample", "timestep"), 1)


@pytest.fixture
def claim(tmp_path):
    """A store that claims these sizes."""

    def make(lengths, chunks=None):
        return hostile_store.claiming(small_store.save(small_store.evaluated(), tmp_path / "s.zarr"), lengths, chunks)

    return make


@pytest.mark.parametrize(
    ("lengths", "told"),
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
def test_a_store_that_claims_too_much_is_refused_beside_the_others(claim, stored, lengths, told):
    library = Library([claim(lengths), stored])
    broken, usable = library.runs.values()
    assert isinstance(broken, Broken)
    assert told in broken.reason
    assert "s.zarr" in broken.reason
    assert len(usable.findings()) > 0


def test_what_is_read_at_once_is_bounded(claim, monkeypatch):
    monkeypatch.setattr(limits, "MEMORY", 10_000)
    path = claim({})
    with pytest.raises(GradscopeError, match="claims .* kB that are read at once; the dashboard shows up to 10 kB"):
        Recorded(path)


def test_diagnostics_are_read_while_there_is_room(stored, monkeypatch):
    each = 16 * 16 * 10 * 8  # bytes: cells, samples, timesteps, float64
    monkeypatch.setattr(recorded, "MEMORY", limits.check(stored) + 2 * each)
    run = Recorded(stored)
    run.scalars("gradient_norm", "log_prob")
    with pytest.raises(
        GradscopeError, match=r"gradient_cosine takes 20.5 kB; .* holds up to 41 kB of a store's diagnos"
    ):
        run.scalars("gradient_cosine")
    assert run.scalars("gradient_norm")["gradient_norm"].size == 16 * 16 * 10


def test_tensors_that_are_too_large_are_not_drawn(claim):
    run = Recorded(claim(LARGE, LARGE | ONE))
    with pytest.raises(GradscopeError, match="a picture of 805,306,368 elements; at most 67,108,864"):
        Images().frame(run, 0, 0, [0, 1, 2, 3], "cell")
    with pytest.raises(GradscopeError, match="a picture of 402,653,184 elements"):
        Images().thumbnails(run, 0, 0, 7)


def test_long_names_and_metadata_are_refused(tmp_path, stored, monkeypatch):
    long = small_store.evaluated().assign_coords(classifier=["x" * 201, "y"])
    with pytest.raises(GradscopeError, match="classifier: a name has at most 200 characters, got 201"):
        Recorded(small_store.save(long, tmp_path / "long.zarr"))
    monkeypatch.setattr(limits, "METADATA", 1000)
    with pytest.raises(GradscopeError, match="has metadata of .* kB; the dashboard shows up to 1 kB"):
        Recorded(stored)


READING = {
    "classifier": lambda path: Recorded(path),
    "judge_class": lambda path: Recorded(path),
    "label": lambda path: Recorded(path).findings(),
    "written": lambda path: Recorded(path),
    "gradient_norm": lambda path: Recorded(path).scalars("gradient_norm"),
    "confusion": lambda path: Recorded(path).scalars("gradient_norm"),
    "image": lambda path: Images().thumbnails(Recorded(path), 0, 0, 7),
    "gradient": lambda path: Images().frame(Recorded(path), 0, 0, [0], "cell"),
    "gradient_cosine": lambda path: open_store(path)["gradient_cosine"].values,
    "transfer_ratio": lambda path: open_store(path)["transfer_ratio"].values,
}


@pytest.mark.parametrize("name", READING)
def test_what_a_chunk_decodes_to_is_bounded_by_the_metadata(claim, name):
    path = hostile_store.replaced(claim({}), name, hostile_store.zstd_of_zeros(BOMB))
    with pytest.raises(
        GradscopeError, match=f"{name}/c/.* is damaged: it (decodes to {BOMB} bytes, wanted|has more than)"
    ):
        READING[name](path)


def test_a_chunk_that_does_not_say_what_it_holds_is_refused(claim):
    path = hostile_store.replaced(claim({}), "written", hostile_store.zstd_of_zeros(BOMB, sized=False)[:500])
    with pytest.raises(GradscopeError, match="its header does not give its decoded size"):
        Recorded(path)


def test_a_file_with_holes_is_not_read_to_its_end(claim):
    path = claim({})
    for file in (path / "written" / "c").rglob("[0-9]"):
        if file.is_file():
            with file.open("r+b") as content:
                content.truncate(2**33)
    with pytest.raises(GradscopeError, match="it has more than .* bytes"):
        Recorded(path)


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


def test_the_sizes_of_real_runs_are_let_in(claim):
    """Ten times the samples that the benchmarks record, and as many timesteps."""
    many = limits.check(claim({"sample": 640, "timestep": 1000}))
    assert small_store.SAMPLES * small_store.TIMESTEPS < many < limits.MEMORY // 10
