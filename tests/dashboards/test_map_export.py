"""Tensors as npy, and trajectories as GIF."""

import io

import numpy as np
import pytest
import small_store
from PIL import Image, ImageSequence

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.widgets import map_export
from dashboards.widgets.file_names import file_name, safe
from dashboards.widgets.map_export import map_menu

pytestmark = pytest.mark.usefixtures("silent")


@pytest.fixture(scope="module")
def at(evaluated):
    """Cell 1 at its third timestep."""
    return {"t": int(evaluated["timestep"].values[2])}


def test_npy_holds_the_tensor_and_its_name_says_which(client, run, evaluated, at):
    for cell in (0, 3):
        for name in run.tensors:
            answer = client.get(f"/tensors/{run.key}/{cell}/1/{at['t']}/{name}.npy")
            assert answer.status_code == 200
            wanted = evaluated[name].sel(run.cells[cell]).sel(sample=1, timestep=at["t"])
            found = np.load(io.BytesIO(answer.data), allow_pickle=False)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted.values)
            place = "_".join(
                f"{part:g}" if isinstance(part, float) else part for part in dict(run.cells[cell]).values()
            )
            file = f"small_{place}_{name}_t{at['t']}_sample1.npy"
            assert answer.headers["Content-Disposition"] == f"attachment; filename={file}"


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("tensors/x/0/0/{t}/gradient.npy", "run 'x': one of 5f0c"),
        ("tensors/5f0c/99/0/{t}/gradient.npy", "cell 99"),
        ("tensors/5f0c/0/99/{t}/gradient.npy", "sample 99"),
        ("tensors/5f0c/0/0/1/gradient.npy", "t = 1: no tensors of sample 0"),
        ("tensors/5f0c/0/0/{t}/written.npy", "tensor 'written': one of gradient"),
        ("trajectories/x/0/0.gif?cells=1", "run 'x': one of 5f0c"),
        ("trajectories/5f0c/99/0.gif?cells=1", "cell 99"),
        ("trajectories/5f0c/0/99.gif?cells=1", "sample 99"),
        ("trajectories/5f0c/0/0.gif?cells=zz", "cells 'zz'"),
        ("trajectories/5f0c/0/0.gif?cells=1&limits=none", "limits 'none'"),
    ],
)
def test_what_does_not_exist_is_answered_in_a_line(client, at, address, message):
    answer = client.get(f"/{address.format(**at)}")
    assert (answer.status_code, answer.mimetype, answer.text.count("\n")) == (404, "text/plain", 1)
    assert message in answer.text


def test_a_gif_has_every_step_as_the_page_draws_it(client, run, evaluated):
    answer = client.get(f"/trajectories/{run.key}/1/2.gif?cells=2&limits=cell")
    assert answer.mimetype == "image/gif"
    assert answer.headers["Content-Disposition"].endswith("_trajectory_sample2.gif")
    gif = Image.open(io.BytesIO(answer.data))
    assert run.key in gif.info["comment"].decode()
    assert gif.n_frames == evaluated.sizes["timestep"]
    for step, shown in enumerate(ImageSequence.Iterator(gif)):
        frame = client.get(f"/frames/{run.key}/2/{step}.png?cells=2&limits=cell").data
        drawn = np.asarray(Image.open(io.BytesIO(frame)).convert("RGB"), dtype=int)
        times = (shown.height - map_export.STRIP) // drawn.shape[0]
        assert times * drawn.shape[0] >= map_export.TILE
        middle = np.asarray(shown.convert("RGB"), dtype=int)[
            times // 2 : -map_export.STRIP : times, times // 2 :: times
        ]
        assert middle.shape == drawn.shape
        assert np.abs(middle - drawn).mean() < 4  # of 255; a GIF has 256 colours
        assert np.asarray(shown.convert("L"))[-map_export.STRIP :].min() < 100  # t is written there


def test_a_long_trajectory_leaves_steps_out(client, run, monkeypatch):
    monkeypatch.setattr(map_export, "FRAMES", 3)
    gif = Image.open(io.BytesIO(client.get(f"/trajectories/{run.key}/1/2.gif?cells=2").data))
    assert gif.n_frames == 3
    monkeypatch.setattr(map_export, "ELEMENTS", 1)
    assert Image.open(io.BytesIO(client.get(f"/trajectories/{run.key}/1/2.gif?cells=2").data)).n_frames == 1


def test_of_a_growing_run_what_is_written_is_saved(tmp_path, evaluated):
    ds = evaluated.copy(deep=True)
    ds["written"][dict(timestep=slice(2, None))] = 0
    app = app_of(Library([small_store.save(ds, tmp_path / "part.zarr")]), "/")
    client = app.server.test_client()
    gif = Image.open(io.BytesIO(client.get("/trajectories/5f0c/0/0.gif?cells=1").data))
    assert gif.n_frames == 2
    later = int(ds["timestep"].values[3])
    assert client.get(f"/tensors/5f0c/0/0/{later}/gradient.npy").status_code == 404


def test_a_store_without_tensors_has_no_menu(opened, evaluated):
    names = [name for name in ("gradient", "update", "x_t", "pred_original_sample", "direction") if name in evaluated]
    assert map_menu(opened(evaluated.drop_vars(names))) is None


def test_names_of_files_are_safe():
    cell = {"classifier": "../../etc", "classifier_input": 'a"b\n', "stabilizer": "ü", "guidance_scale": 0.25}
    name = file_name("x y.zarr", "forest", {"a": cell, "b": {"classifier": "b"}})
    assert name == "x-y_..-..-etc_a-b-_-_0.25_vs_b_forest"
    assert "/" not in name
    assert safe("../") == "figure"
    assert len(safe("a" * 1000)) == 150
