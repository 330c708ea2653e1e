"""The library: runs by key, and broken stores beside the others."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small_store
import trajectory_store
from dash_client import show

import gradscope
from dashboards import create_app
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.trajectory.browser_data import sample_numbers
from gradscope.analysis.selections import restore_dims
from gradscope.errors import GradscopeError
from gradscope.store.dims import over

FEW = ["log_prob", "written"]


def test_runs_are_found_by_their_keys(stored, tmp_path):
    copy = shutil.copytree(stored, tmp_path / "copy.zarr")
    other = small_store.save(small_store.recorded()[FEW].assign_attrs(run_id="0123456789"), tmp_path / "other.zarr")
    library = Library([stored, other, copy, stored])
    assert [run.path for run in library.runs.values()] == [stored, other, copy]
    assert all(key == run.key for key, run in library.runs.items())
    first, second, third = library.runs
    assert (first, second) == ("5f0c", "01234567")
    assert len(third) == 8
    assert library.run(second).path == other
    for unknown in (None, "", "nothing", "../etc"):
        assert library.run(unknown).path == stored
    with pytest.raises(GradscopeError, match="which store"):
        Library([])


def test_keys_are_fit_for_urls(tmp_path):
    for i, run_id in enumerate(["../../etc", "", "a b", "ü" * 8]):
        ds = small_store.recorded()[FEW].assign_attrs(run_id=run_id)
        run = OpenRun(small_store.save(ds, tmp_path / f"{i}.zarr"))
        assert len(run.key) == 8
        assert run.key.isalnum()


def test_a_broken_store_has_a_reason_and_is_opened_again(stored, tmp_path):
    def break_zarr_json(path):
        (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {"schema')

    def break_marker(path):
        for file in filter(Path.is_file, (path / "written" / "c").rglob("*")):
            file.write_bytes(b"not zstd")

    def drop_marker(path):
        small_store.save(small_store.recorded()[["log_prob"]], path)

    faults = {"json": break_zarr_json, "marker": break_marker}
    paths = [stored, tmp_path / "missing.zarr"]
    for name, fault in faults.items():
        paths.append(shutil.copytree(stored, tmp_path / f"{name}.zarr"))
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
        "damaged: its header does not give its decoded size",
        "it lacks written",
    ]
    for run, reason in zip(broken, reasons, strict=True):
        assert reason in run.reason
        assert "\n" not in run.reason
    shutil.copytree(stored, paths[1])
    mended = library.run(broken[0].key)
    assert isinstance(mended, OpenRun)
    assert mended.key == broken[0].key
    assert library.run(mended.key) is mended


WHOLE_TIMES = {"timestep": np.array([90, 60, 40, 20, 5])}


def test_trajectories_and_further_dimensions_are_shown(tmp_path):
    path = trajectory_store.save(tmp_path / "robot.zarr", **WHOLE_TIMES)
    run = OpenRun(path)
    assert len(run.cells) == 8
    assert run.cells[3] == {
        "classifier": "value", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5, "method": "mpgd",
    }  # fmt: skip
    assert run.not_drawn == ""
    assert run.tensors == ("gradient",)
    wanted = gradscope.open(path)["gradient_norm"].values
    np.testing.assert_array_equal(run.values("gradient_norm"), wanted)
    client = create_app([path]).server.test_client()
    for page in ("overview", "trajectory", "compare", "distributions", "samples", "run"):
        shown = json.dumps(show(client, page)["page"])
        assert "cannot be opened" not in shown
    trajectory = json.dumps(show(client, "trajectory"))
    assert "A line for each action, over horizon." in trajectory
    frame = client.get(f"/frames/{run.key}/1/3.png?cells=9")  # cells 0 and 3
    stored = gradscope.open(path)["gradient"].values.reshape(8, 5, 5, 8, 2)[[0, 3], 1, 3]
    norms = json.loads(frame.headers["Gradscope-Frame"])["norms"]["gradient"]
    np.testing.assert_allclose(norms, np.linalg.norm(stored.reshape(2, -1), axis=1), rtol=1e-4)
    written = sample_numbers(run, 7, 4)
    assert written["written"] == 5
    np.testing.assert_allclose(written["values"]["gradient_norm"], wanted.reshape(8, 5, 5)[7, 4], rtol=1e-3)


def test_of_repeated_timesteps_the_last_repetition_is_shown(tmp_path):
    path = trajectory_store.save(tmp_path / "robot.zarr", **(WHOLE_TIMES | {"repeats": 2}))
    run = OpenRun(path)
    assert "repeat" not in run.ds.dims
    wanted = restore_dims(gradscope.open(path))["gradient_norm"].transpose(*over(run.ds)).values
    np.testing.assert_array_equal(run.values("gradient_norm"), wanted)
    client = create_app([path]).server.test_client()
    for page in ("overview", "trajectory", "compare", "distributions", "samples", "run"):
        assert "cannot be opened" not in json.dumps(show(client, page)["page"])


@pytest.mark.parametrize(
    ("timestep", "shown"),
    [
        (np.array([800.6, 600.4, 400.2, 199.9, 0.2]), [801, 600, 400, 200, 0]),
        (np.array([1.0, 0.75, 0.5, 0.25, 0.1]), [4, 3, 2, 1, 0]),
        (np.array([800.0, 600.0, 600.0, 400.0, 0.0]), [4, 3, 2, 1, 0]),
    ],
)
def test_timesteps_that_are_not_whole_or_come_twice_get_whole_numbers(tmp_path, timestep, shown):
    path = trajectory_store.save(tmp_path / "robot.zarr", **(WHOLE_TIMES | {"timestep": timestep}))
    run = OpenRun(path)
    assert run.ds["timestep"].values.tolist() == shown
    np.testing.assert_array_equal(run.values("gradient_norm"), gradscope.open(path)["gradient_norm"].values)
    client = create_app([path]).server.test_client()
    for page in ("overview", "trajectory", "compare", "distributions", "samples", "run"):
        assert "cannot be opened" not in json.dumps(show(client, page)["page"])
