"""What a killed process, a power failure or a failing disk leaves of a store that is being created or replaced."""

import errno
import json
import os
import random
import shutil

import numpy as np
import pytest
import xarray as xr
from crash.disk import Disk, state_of
from crash.tracing import traced
from sound_store import ABOUT, BLOCK, KINDS, TIMESTEPS, edit_json, make

import gradscope
from gradscope.errors import GradscopeError
from gradscope.store import Array, Frame, Grid, Schema, StoreWriter, add_variables, create
from gradscope.store.locations import folder
from gradscope.store.locations.location import locate
from gradscope.store.replacement import clear
from gradscope.store.session import begin, remove_leftovers
from gradscope.verification.verify import verify


def schema(codec="none"):
    grid = Grid(
        classifier=("c",),
        classifier_input=("x_t",),
        stabilizer=("none",),
        guidance_scale=(1.0,),
        label=np.zeros(2, int),
        seed=np.arange(2),
        timestep=np.arange(TIMESTEPS)[::-1],
        alphas_cumprod=np.linspace(0.1, 0.9, TIMESTEPS),
        sigma=np.ones(TIMESTEPS),
        sample_shape=(3, 4, 4),
        batch_size=BLOCK,
    )
    tensor = Array("gradient", "tensor", ABOUT, dims=("channel", "height", "width"))
    return Schema(grid, (tensor, Array("gradient_norm", "scalar", ABOUT)), codec=codec)


def failing(number, *ends):
    """A fault of every call about a path with one of these ends."""

    def fault(call):
        if call.kind in ("read", "open") and call.path.endswith(ends):
            raise OSError(number, os.strerror(number), call.path)

    return fault


def test_a_store_that_is_overwritten_is_there_at_every_moment(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, schema(), {"run_id": "old"})
    disk, found = Disk(state_of(tmp_path)), []
    with traced(tmp_path) as trace:
        create(path, schema(), {"run_id": "new"}, overwrite=True)
    for event in trace.events:
        disk.apply(event)
        content = disk.now().get("s.zarr/zarr.json")
        found.append("none" if content is None else "old" if b'"old"' in content else "new")
    assert found == sorted(found, reverse=True)
    assert {*found} == {"old", "new"}
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_store_is_overwritten_also_where_names_cannot_be_exchanged_at_once(tmp_path, monkeypatch, at_once):
    if not at_once:
        monkeypatch.setattr(folder, "exchange", lambda new, old: False)
    path = tmp_path / "s.zarr"
    for run in ("old", "new"):
        create(path, schema(), {"run_id": run}, overwrite=True)
        assert gradscope.open(path).attrs["run_id"] == run
        assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize("how", ["another creation", "a resumption elsewhere"])
def test_a_store_that_was_put_aside_by_a_killed_process_comes_back(tmp_path, how):
    """Without an exchange at once there is a moment in which the store has no name but a hidden one."""
    path = tmp_path / "s.zarr"
    create(path, schema(), {"run_id": "old"})
    path.rename(tmp_path / ".s.zarr.replaced")
    create(tmp_path / ".s.zarr.partial", schema(), {"run_id": "new"})
    (tmp_path / ".s.zarr.making").touch()
    if how == "another creation":
        with pytest.raises(GradscopeError, match="exists"):
            create(path, schema(), {"run_id": "third"})
    else:
        locate(path).clean()
    assert gradscope.open(path).attrs["run_id"] == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


def test_a_resumption_removes_what_a_killed_creation_left_beside_the_store(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, schema(), {})
    shutil.copytree(path, tmp_path / ".s.zarr.partial")
    (tmp_path / ".s.zarr.making").touch()
    begin(locate(path), schema(), {}, resume=True)
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.slow
def test_what_an_overwriting_left_beside_a_complete_store_is_removed(tmp_path):
    path = make(tmp_path / "s.zarr", KINDS["plain"])
    shutil.copytree(path, tmp_path / ".s.zarr.partial")
    remove_leftovers(path)
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]
    assert verify(path).findings == ()


@pytest.mark.slow
def test_a_creation_by_another_process_is_left_alone(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, schema(), {})
    with locate(path)._creating() as free:
        assert free
        (tmp_path / ".s.zarr.partial").mkdir()
        locate(path).clean()
        assert (tmp_path / ".s.zarr.partial").exists()
        with pytest.raises(GradscopeError, match="another process is creating it"):
            create(path, schema(), {}, overwrite=True)
        assert (tmp_path / ".s.zarr.making").exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_durable_store_is_created_whole_or_not_at_all_if_the_power_fails(tmp_path, overwrite):
    if overwrite:
        create(tmp_path / "s.zarr", schema(), {"run_id": "old"}, durable=True)
    start = state_of(tmp_path)
    with traced(tmp_path) as trace:
        create(tmp_path / "s.zarr", schema(), {"run_id": "new"}, overwrite=overwrite, durable=True)

    def visible(state):
        return {path: content for path, content in state.items() if not path.startswith(".")}

    before, after, seen = visible(start), visible(state_of(tmp_path)), []
    disk, rng = Disk(start), random.Random(0)
    for event in trace.events:
        disk.apply(event)
        for state in disk.power_failures(".s.zarr", 1, rng):
            seen.append(visible(state) == after)
            assert seen[-1] or visible(state) == before
    assert {*seen} == {True, False}
    assert seen[-1]


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_durable_chunk_that_is_written_again_is_the_old_or_the_new_one_if_the_power_fails(tmp_path, codec):
    create(tmp_path / "s.zarr", schema(codec), {}, durable=True)
    start = state_of(tmp_path)
    arrays = {"gradient": np.ones((2, 3, 4, 4), "f4"), "gradient_norm": np.ones(2, "f4")}
    with traced(tmp_path) as trace:
        writer = StoreWriter(tmp_path / "s.zarr", schema(codec), durable=True, flush_seconds=0.0)
        for step in range(TIMESTEPS):
            writer.submit(Frame((0, 0, 0, 0), 0, step, arrays))
        writer.close()
    disk, rng, sizes = Disk(start), random.Random(0), set()
    key = next(event.other for event in trace.events if event.kind == "rename" and "/gradient/c." in event.other)
    versions = [event.data for event in trace.events if event.kind == "write" and event.path.startswith(key)]
    assert len(versions) == 2
    for event in trace.events:
        disk.apply(event)
        for state in disk.power_failures(".s.zarr", 1, rng):
            assert state.get(key) in (None, *versions)
            sizes.add(state.get(key) is None)
    assert sizes == {True, False}
    assert {event.path for event in trace.events if event.kind == "create" and event.path.startswith(key)} == {
        f"{key}.partial"
    }


def test_the_folder_of_a_new_array_is_on_the_disk_before_the_root_names_it(tmp_path):
    create(tmp_path / "s.zarr", schema(), {}, durable=True)
    start = state_of(tmp_path)
    with traced(tmp_path) as trace:
        add_variables(tmp_path / "s.zarr", xr.Dataset({"mine": ((), 1.0, ABOUT)}))
    disk, rng, seen = Disk(start), random.Random(0), set()
    for event in trace.events:
        disk.apply(event)
        for state in disk.power_failures(".s.zarr", 1, rng):
            named = b'"mine"' in (state["s.zarr/zarr.json"] or b"")
            seen.add(named)
            assert not named or state.get("s.zarr/mine/c")
            left = "s.zarr/mine" in state and not named
            assert not left or "s.zarr/.evaluation.partial" in state
    assert seen == {True, False}


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_metadata_that_cannot_be_read_are_not_called_missing(tmp_path, number):
    path = make(tmp_path / "s.zarr", KINDS["plain"])
    with (
        traced(tmp_path, failing(number, "s.zarr/zarr.json")),
        pytest.raises(GradscopeError, match=f"zarr.json cannot be read: {os.strerror(number)}"),
    ):
        gradscope.open(path)


def test_an_evaluation_ends_with_a_clear_message_where_its_journal_cannot_be_read(tmp_path):
    path = make(tmp_path / "s.zarr", KINDS["plain"])
    (path / ".evaluation.partial").write_text('["own_prediction"]')
    with (
        traced(tmp_path, failing(errno.EIO, ".evaluation.partial")),
        pytest.raises(GradscopeError, match="partial cannot be read: Input/output error"),
    ):
        clear(locate(path))


@pytest.mark.parametrize("whole_folder", [False, True])
def test_the_file_that_is_locked_comes_back_where_a_power_failure_took_it_alone(tmp_path, whole_folder):
    path = tmp_path / "s.zarr"
    create(path, schema(), {"status": "interrupted"})
    lock = path / "written" / "zarr.json"
    before = json.loads(lock.read_text())
    shutil.rmtree(lock.parent) if whole_folder else lock.unlink()
    (found,) = verify(path).findings
    assert found.remedy.startswith("the next evaluation or resumption makes it")
    with locate(path).lock(), pytest.raises(GradscopeError, match="another process"), locate(path).lock():
        pass
    assert json.loads(lock.read_text()) == before
    assert verify(path).sound


def test_no_file_to_lock_is_made_outside_of_a_store_or_where_there_is_none(tmp_path):
    path, outside = tmp_path / "s.zarr", tmp_path / "outside"
    create(path, schema(), {})
    shutil.rmtree(path / "written")
    outside.mkdir()
    (path / "written").symlink_to(outside)
    for place in (path, outside):
        with pytest.raises(GradscopeError, match="no array `written`"), locate(place).lock():
            pass
    assert not [*outside.iterdir()]


@pytest.mark.slow
def test_chunks_that_cannot_be_read_are_named(tmp_path):
    path = make(tmp_path / "s.zarr", KINDS["plain"])
    image = "image/c.0.0.0.0.0.0.0.0"
    ds = gradscope.open(path)
    with traced(tmp_path, failing(errno.EIO, image)):
        with pytest.raises(GradscopeError, match=f"{image} cannot be read: Input/output error"):
            ds["image"].load(scheduler="synchronous")
        (found,) = verify(path).findings
    assert f"{image} cannot be read: Input/output error" in str(found)
    with traced(tmp_path, failing(errno.EIO, "image/zarr.json")):
        (found,) = verify(path).findings
    assert "image/zarr.json cannot be read: Input/output error" in str(found)


@pytest.mark.slow
def test_a_store_whose_process_was_killed_while_it_grew_is_sound(tmp_path):
    """The root holds the new shapes; the arrays' own metadata follow, in the next process if need be."""
    path = make(tmp_path / "s.zarr", KINDS["plain"])
    edit_json(path / "gradient" / "zarr.json", lambda about: about.update(shape=[1, *about["shape"][1:]]))
    assert "differs from the copy" in str(verify(path).findings[0])
    (path / ".evaluation.partial").write_text('["gradient", "written"]')
    found = verify(path)
    assert found.findings == ()
    assert "the store is being enlarged or was interrupted at that" in found.remarks[0]
    clear(locate(path))
    assert verify(path).findings == ()
    assert not (path / ".evaluation.partial").exists()
