"""An open run: the numbers of `gradscope.open`, and in a growing store only its new chunks are read."""

import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import small_store
import xarray as xr
from benchmarks.make_store import Run, Settings
from zarr.storage import LocalStore

from dashboards.data.open_run import OpenRun
from gradscope.analysis.signatures import find, untested
from gradscope.errors import GradscopeError
from gradscope.store import StoreWriter, add_variables, create, open_store, set_attributes
from gradscope.store.chunks import Chunks

SETTINGS = Settings(timesteps=60, samples=6, batch_size=3, tensor_samples=2, size=8, stabilizers=("none",))


class Live:
    """A run that is being recorded, step by step."""

    def __init__(self, path: Path) -> None:
        self.path, self.made = path, Run(SETTINGS)
        create(path, self.made.schema, self.made.attributes())
        self.frames = self.made.frames()
        self.writer = StoreWriter(path, self.made.schema, flush_seconds=0.05)

    def record(self, steps: int) -> None:
        """Record some steps; their scalars are on disk afterwards."""
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


@pytest.mark.slow
def test_scalars_are_those_of_the_store(stored):
    run = OpenRun(stored)
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
    np.testing.assert_array_equal(run.written(9, 2), open_store(stored)["written"].values[1, 0, 0, 1, 2])
    assert run.findings() == find(open_store(stored).load())
    assert run.findings() is run.findings()
    assert run.untested() == untested(open_store(stored)) == {}


def test_names_that_are_not_scalars_are_refused(stored):
    run = OpenRun(stored)
    with pytest.raises(GradscopeError, match="gradient is not a scalar; one of: .*gradient_norm"):
        run.scalars("gradient")
    with pytest.raises(GradscopeError, match="infidelity is not in this store; the probe `attribution` records it"):
        run.scalars("infidelity")
    assert "judge_accuracy" not in run.scalars("judge_prediction", "written")


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_end_of_a_recording_is_seen(live):
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


def test_a_finished_store_costs_one_look(stored, monkeypatch):
    run = OpenRun(stored)
    run.scalars()
    reads = []
    original = LocalStore.get
    monkeypatch.setattr(LocalStore, "get", lambda self, key, *rest: reads.append(key) or original(self, key, *rest))
    monkeypatch.setattr(Chunks, "stamp", lambda self, index: reads.append(index))
    assert not run.refresh()
    run.scalars()
    assert reads == []


def test_a_store_that_vanishes_stays_as_it_was(live):
    live.record(20)
    live.finish("interrupted")
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


def test_computed_values_are_kept_for_a_version(live):
    run = OpenRun(live.path)
    made = []
    count = partial(run.memo, "key", lambda: made.append(1) or len(made))
    assert [count(), count()] == [1, 1]
    live.record(10)
    run.refresh()
    assert [count(), count()] == [2, 2]


def test_tensors_are_counted_where_the_configuration_lacks_them(tmp_path):
    for every, samples in ((3, 4), (1, 2)):
        ds = small_store.recorded()[["gradient", "written"]]
        ds["written"][:] = 1
        ds["written"][:, :, :, :, :samples, ::every] = 3
        run = OpenRun(small_store.save(ds, tmp_path / f"{every}.zarr"))
        assert (run.tensor_samples, run.tensor_every) == (samples, every)
    ds = small_store.recorded()[["log_prob", "written"]]
    run = OpenRun(small_store.save(ds, tmp_path / "none.zarr"))
    assert (run.tensors, run.tensor_samples) == ((), 0)
