"""Stores as the dashboard holds them: the same numbers as `gradscope.open`, and of a growing one only what is new."""

import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_store
import xarray as xr
from benchmarks.make_store import Run, Settings
from zarr.storage import LocalStore

from dashboards.data.cache import Cache
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from gradscope.analysis.signatures import find, untested
from gradscope.errors import GradscopeError
from gradscope.store import StoreWriter, add_variables, create, open_store, set_attributes
from gradscope.store.chunks import Chunks

SETTINGS = Settings(timesteps=60, samples=6, batch_size=3, tensor_samples=2, size=8, stabilizers=("none",))


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    return small_store.save(small_store.evaluated(), tmp_path_factory.mktemp("stores") / "evaluated.zarr")


class Live:
    """A run that is being recorded, as far as a test wants it."""

    def __init__(self, path: Path) -> None:
        self.path, self.made = path, Run(SETTINGS)
        create(path, self.made.schema, self.made.attributes())
        self.frames = self.made.frames()
        self.writer = StoreWriter(path, self.made.schema, flush_seconds=3600)

    def record(self, steps: int) -> None:
        """Multiples of 10 are on disk when this returns."""
        for _ in range(steps):
            last = next(self.frames)
            self.writer.submit(last)
        where = (*last.cell, last.first_sample, last.step)
        while not self.writer._chunks["written"].array[where]:
            threading.Event().wait(0.002)

    def finish(self, status: str = "complete") -> None:
        self.writer.close()
        set_attributes(self.path, {"status": status})


@pytest.fixture
def live(tmp_path, hold):
    run = Live(tmp_path / "live.zarr")
    hold(run.path)
    yield run
    run.writer.close()


def same(run: OpenRun, *names: str) -> None:
    """The run's scalars are those that `gradscope.open` reads."""
    expected, got = open_store(run.path), run.scalars(*names)
    assert got.attrs == expected.attrs
    timed = {n for n, v in expected.data_vars.items() if "timestep" in v.dims and "channel" not in v.dims}
    small = {n for n, v in expected.data_vars.items() if not {"timestep", "channel"} & set(v.dims)}
    assert set(got.data_vars) == (set(names) or timed) | small | {"written"}
    for name, values in got.data_vars.items():
        assert isinstance(values.variable._data, np.ndarray), name
        xr.testing.assert_identical(values.variable, expected[name].variable.to_base_variable().load())
    for name in expected.coords:
        xr.testing.assert_identical(got[name].variable, expected[name].variable.load())
    assert dict(got.sizes) == dict(expected.sizes)


def test_scalars_are_those_of_the_store(evaluated):
    run = OpenRun(evaluated)
    same(run)
    same(run, "gradient_cosine", "log_prob")
    assert not run.live
    assert run.tensors == ("gradient", "update", "x_t", "pred_original_sample")
    assert (run.tensor_samples, run.tensor_every) == (small_store.TENSORS, 1)
    assert run.cells[3] == {
        "classifier": "robust",
        "classifier_input": "x_t",
        "stabilizer": "adam",
        "guidance_scale": 0.5,
    }
    np.testing.assert_array_equal(run.written(9, 2), open_store(evaluated)["written"].values[1, 0, 0, 1, 2])
    assert run.findings() == find(open_store(evaluated).load())
    assert run.findings() is run.findings()
    assert run.untested() == untested(open_store(evaluated)) == {}


def test_names_that_are_no_scalars_are_refused(evaluated):
    run = OpenRun(evaluated)
    with pytest.raises(GradscopeError, match="gradient is not a scalar; one of: .*gradient_norm"):
        run.scalars("gradient")
    with pytest.raises(GradscopeError, match="infidelity is not in this store; the probe `attribution` records it"):
        run.scalars("infidelity")
    assert "judge_accuracy" not in run.scalars("judge_prediction", "written")


def test_a_growing_store_is_read_where_it_grew(live, monkeypatch):
    run = OpenRun(live.path)
    assert run.live
    assert (run.tensor_samples, run.tensor_every) == (2, 1)
    assert not (run.scalars()["written"] > 0).any()
    assert not run.refresh()
    versions = [run.version]
    read = []
    for name in ("read", "whole", "part"):
        original = getattr(Chunks, name)
        monkeypatch.setattr(
            Chunks, name, lambda self, *where, o=original, n=name: read.append((n, self.array.name)) or o(self, *where)
        )
    for steps in (20, 10, 90):
        before = run.scalars("log_prob")["log_prob"].values.copy()
        live.record(steps)
        read.clear()
        held = run.scalars("log_prob")
        assert run.refresh()
        np.testing.assert_array_equal(held["log_prob"].values, before)  # what a reader has stays as it was
        versions.append(run.version)
        run.scalars("log_prob")
        changed = 4 if steps == 90 else 1  # chunks of 50 steps, blocks of 60
        assert sorted(read) == sorted([("read", "/written"), ("part", "/log_prob")] * changed)
        same(run)
        assert not run.refresh()
    assert len(set(versions)) == 4
    assert OpenRun(live.path).version == versions[-1]


def test_what_ends_a_recording_is_seen(live):
    live.record(60)
    run = OpenRun(live.path)
    run.scalars()
    live.finish("interrupted")
    assert run.refresh()
    assert not run.live
    assert not run.refresh()
    same(run)
    version = run.version
    add_variables(live.path, live.made.verdicts())
    assert run.refresh()
    assert run.version != version
    same(run)
    np.testing.assert_array_equal(run.scalars()["own_prediction"], live.made.verdicts()["own_prediction"])
    stale = run.version
    live.path.joinpath("zarr.json").touch()  # written again, and the same
    assert not run.refresh()
    assert run.version == stale


def test_a_finished_store_costs_one_look(evaluated, monkeypatch):
    run = OpenRun(evaluated)
    run.scalars()
    looked = []
    original = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, key, *rest: looked.append(key) or original(self, key, *rest))
    monkeypatch.setattr(Chunks, "stamp", lambda self, index: looked.append(index))
    assert not run.refresh()
    run.scalars()
    assert looked == []


def test_a_store_that_vanishes_stays_as_it_was(live):
    live.record(20)
    live.finish()
    run = OpenRun(live.path)
    version, scalars = run.version, run.scalars()
    moved = live.path.with_name("moved.zarr")
    live.path.rename(moved)
    assert not run.refresh()
    assert run.version == version
    xr.testing.assert_identical(run.scalars(), scalars)
    moved.rename(live.path)
    assert not run.refresh()
    same(run)


def test_what_was_computed_is_kept_for_a_version(live):
    run = OpenRun(live.path)
    made = []
    count = partial(run.memo, "key", lambda: made.append(1) or len(made))
    assert [count(), count()] == [1, 1]
    live.record(10)
    run.refresh()
    assert [count(), count()] == [2, 2]


def test_tensors_are_counted_where_the_configuration_does_not_tell(tmp_path):
    for every, samples in ((3, 4), (1, 2)):
        ds = small_store.recorded()
        ds["written"][:] = 1
        ds["written"][:, :, :, :, :samples, ::every] = 3
        run = OpenRun(small_store.save(ds, tmp_path / f"{every}.zarr"))
        assert (run.tensor_samples, run.tensor_every) == (samples, every)
    ds = small_store.recorded().drop_vars(["gradient", "update", "x_t", "pred_original_sample"])
    run = OpenRun(small_store.save(ds, tmp_path / "none.zarr"))
    assert (run.tensors, run.tensor_samples) == ((), 0)


def test_runs_are_found_by_their_keys(evaluated, live, tmp_path):
    copy = shutil.copytree(evaluated, tmp_path / "copy.zarr")
    library = Library([evaluated, live.path, copy, evaluated])
    assert [run.path for run in library.runs.values()] == [evaluated, live.path, copy]
    assert all(key == run.key for key, run in library.runs.items())
    first, second, third = library.runs
    assert (first, second) == ("5f0c", str(open_store(live.path).attrs["run_id"])[:8])
    assert len(third) == 8
    assert library.run(second).path == live.path
    for unknown in (None, "", "nothing", "../etc"):
        assert library.run(unknown).path == evaluated
    with pytest.raises(GradscopeError, match="which store"):
        Library([])


def test_keys_are_fit_for_urls(tmp_path):
    for i, run_id in enumerate(["../../etc", "", "a b", "ü" * 8]):
        ds = small_store.recorded().assign_attrs(run_id=run_id)
        run = OpenRun(small_store.save(ds[["written", "log_prob"]], tmp_path / f"{i}.zarr"))
        assert len(run.key) == 8
        assert run.key.isalnum()


def test_a_broken_store_is_told_and_tried_again(evaluated, tmp_path):
    def break_zarr_json(path):
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"schema')

    def break_marker(path):
        for file in filter(Path.is_file, (path / "written" / "c").rglob("*")):
            file.write_bytes(b"not zstd")

    def drop_marker(path):
        small_store.save(small_store.recorded()[["log_prob"]], path)

    faults = {"json": break_zarr_json, "marker": break_marker}
    paths = [evaluated, tmp_path / "missing.zarr"]
    for name, fault in faults.items():
        paths.append(shutil.copytree(evaluated, tmp_path / f"{name}.zarr"))
        fault(paths[-1])
    paths.append(tmp_path / "unmarked.zarr")
    drop_marker(paths[-1])
    library = Library(paths)
    good, *broken = library.runs.values()
    assert isinstance(good, OpenRun)
    assert all(isinstance(run, BrokenRun) for run in broken)
    reasons = [
        "is not a zarr store",
        "its zarr.json cannot be read as JSON",
        "damaged: it does not say",
        "it lacks written",
    ]
    for run, reason in zip(broken, reasons, strict=True):
        assert reason in run.reason
        assert "\n" not in run.reason
    shutil.copytree(evaluated, paths[1])
    mended = library.run(broken[0].key)
    assert isinstance(mended, OpenRun)
    assert mended.key == broken[0].key
    assert library.run(mended.key) is mended


def test_the_cache_makes_once_and_drops_what_was_used_least():
    cache = Cache(10, weigh=len)
    made = []

    def get(key, size):
        return cache.get(key, lambda: made.append(key) or "x" * size)

    get("a", 4), get("b", 4), get("a", 4), get("c", 4)
    assert made == ["a", "b", "c"]
    assert cache.weight == 8
    get("a", 4), get("b", 4)
    assert made == ["a", "b", "c", "b"]
    assert get("huge", 100) == "x" * 100
    assert cache.weight == 100
    get("huge", 100)
    assert made[-1] == "huge"
    get("a", 4)
    assert cache.weight == 4


def test_the_cache_forgets_failures_and_lets_others_wait():
    cache, made, got = Cache(10), [], []
    with pytest.raises(ZeroDivisionError):
        cache.get("key", lambda: 1 / 0)
    begun, go = threading.Event(), threading.Event()

    def make():
        begun.set()
        assert go.wait(20)
        made.append(1)
        return cache.get("inner", lambda: 5)

    threads = [threading.Thread(target=lambda: got.append(cache.get("key", make))) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert begun.wait(20)
    assert cache.get("other", lambda: 7) == 7
    go.set()
    for thread in threads:
        thread.join()
    assert (got, made) == ([5] * 4, [1])
