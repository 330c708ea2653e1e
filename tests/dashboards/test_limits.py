"""Stores whose metadata claim more than a server can hold: refused in words, without making anything of it."""

import hostile_store
import psutil
import pytest
import small_store

from dashboards import limits, recorded
from dashboards.data import Broken, Library, Recorded
from dashboards.images import Images
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS

ROOM = 256 * 2**20
"""Bytes by which this process may grow meanwhile; what is claimed is far more."""
LARGE = {"height": 4096, "width": 4096}
ONE = dict.fromkeys((*CELL_DIMS, "sample", "timestep"), 1)


@pytest.fixture
def claim(tmp_path):
    """A store that claims these sizes."""

    def make(lengths, chunks=None):
        return hostile_store.claiming(small_store.save(small_store.evaluated(), tmp_path / "s.zarr"), lengths, chunks)

    return make


@pytest.fixture(autouse=True)
def bounded():
    before = psutil.Process().memory_info().rss
    yield
    assert psutil.Process().memory_info().rss - before < ROOM


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
    with pytest.raises(GradscopeError, match="a name of 201 characters, 'xxxxxxxxxxxxxxxxxxxx'"):
        Recorded(small_store.save(long, tmp_path / "long.zarr"))
    monkeypatch.setattr(limits, "METADATA", 1000)
    with pytest.raises(GradscopeError, match="has metadata of .* kB; the dashboard shows up to 1 kB"):
        Recorded(stored)


def test_the_sizes_of_real_runs_are_let_in(stored):
    """What the benchmarks record: 8 cells, 1000 timesteps and 64 samples, and ten times as much."""
    assert 0 < limits.check(stored) < 2**20
    assert limits.LONGEST["sample"][1] >= 10 * 64
    assert limits.CHUNKS >= 10 * 4 * 8 * 100 * 8  # tensors, cells, chunks along t and over samples
