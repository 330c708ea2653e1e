"""Writing a store: whole chunks, the marker last, early writes, durability, and errors of the thread."""

import os
import shutil
import threading
import time

import numpy as np
import pytest
import zarr
from random_store import ABOUT, ARRAYS, IMAGE, frames, grid, write

from gradscope.errors import GradscopeError
from gradscope.store import (
    Array,
    Frame,
    Schema,
    StoreWriter,
    create,
    open_store,
)
from gradscope.store import schema as module
from gradscope.store import writer as writer_module
from gradscope.store.locations.files import replace_file


def test_the_marker_is_written_after_tensors_and_scalars(tmp_path, monkeypatch):
    schema = Schema(grid(), ARRAYS)
    _, blocks = frames(schema)
    create(tmp_path / "s.zarr", schema, {})
    order = []
    original = StoreWriter._write
    monkeypatch.setattr(
        StoreWriter, "_write", lambda self, name, *rest: (order.append(name), original(self, name, *rest))
    )
    writer = StoreWriter(tmp_path / "s.zarr", schema)
    for frame in blocks[0][:10]:
        writer.submit(frame)
    writer.close()
    assert order == ["gradient", "norm", "predicted_class", "spectrum", "written"]


@pytest.mark.parametrize(("tensor_samples", "tensor_every"), [(64, 1), (3, 1), (6, 1), (5, 3)])
def test_early_writes_come_from_memory_and_change_no_byte(tmp_path, monkeypatch, tensor_samples, tensor_every):
    """Every step is written by itself, and no chunk is read back for that."""
    schema = Schema(grid(), ARRAYS, tensor_samples, tensor_every)
    whole, blocks = frames(schema)
    blocks = blocks[:2]
    write(tmp_path / "whole.zarr", schema, blocks)
    path = tmp_path / "steps.zarr"
    create(path, schema, {"status": "recording"})
    read = []

    def spied(original):
        return lambda self, key, *rest, **named: read.append(key) or original(self, key, *rest, **named)

    for name in ("get", "get_sync"):
        monkeypatch.setattr(zarr.storage.LocalStore, name, spied(getattr(zarr.storage.LocalStore, name)))
    writer = StoreWriter(path, schema, flush_seconds=0)
    for frame in (frame for block in blocks for frame in block):
        writer.submit(frame)
    writer.close()
    assert not [key for key in read if "/c." in key]
    assert zarr.open_group(path)["norm"][0, 0, 0, 0, 0, 0] == whole["norm"][0, 0, 0, 0, 0, 0]
    assert [key for key in read if "/c." in key] == ["norm/c.0.0.0.0.0.0"]
    assert writer.bytes > 10 * whole["norm"][0, 0, 0, 0].nbytes
    files = [file.relative_to(path) for file in path.rglob("c.*")]
    assert len(files) > 20
    for file in files:
        assert (path / file).read_bytes() == (tmp_path / "whole.zarr" / file).read_bytes(), file


@pytest.fixture
def small_chunks(monkeypatch):
    """Tensors in chunks of one sample and eight of the 23 steps."""
    monkeypatch.setattr(module, "_TENSOR_CHUNK_BYTES", 10 * 3 * 4 * 4 * 4)
    assert Schema(grid(), ARRAYS).tensor_chunk == (1, 8)


@pytest.mark.slow
def test_waiting_scalars_are_written_at_once_and_tensors_at_half_a_chunk(tmp_path, small_chunks):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    whole, blocks = frames(schema)
    create(path, schema, {"status": "recording"})
    writer = StoreWriter(path, schema, flush_seconds=0.01)
    marker = zarr.open_group(path, mode="r")["written"]
    with_tensors = {0: 0, 1: 0, 2: 0, 3: 4, 4: 4, 5: 4, 6: 4, 7: 8, 8: 8}
    for step, frame in enumerate(blocks[0][:9]):
        writer.submit(frame)
        deadline = time.monotonic() + 20
        while not marker[0, 0, 0, 0, 0, step] and time.monotonic() < deadline:
            threading.Event().wait(0.005)
        ds = open_store(path).isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0, sample=slice(4))
        assert (ds["written"] > 0).sum("timestep").values.tolist() == [step + 1] * 4
        assert (ds["written"] == 3).sum("timestep").values.tolist() == [with_tensors[step]] * 4
        np.testing.assert_array_equal(ds["norm"].values[:, : step + 1], whole["norm"][0, 0, 0, 0, :4, : step + 1])
        there = slice(with_tensors[step])
        np.testing.assert_array_equal(ds["gradient"].values[:, there], whole["gradient"][0, 0, 0, 0, :4, there])
        assert np.isnan(ds["gradient"].values[:, there.stop :]).all()
    writer.close()
    ds = open_store(path).isel(classifier=0, classifier_input=0, stabilizer=0, guidance_scale=0, sample=slice(4))
    assert (ds["written"] == 3).sum("timestep").values.tolist() == [9] * 4  # closing writes the rest


@pytest.mark.parametrize("every", [1, 3])
def test_a_fast_sampler_writes_each_chunk_once(tmp_path, monkeypatch, small_chunks, every):
    schema, path = Schema(grid(), ARRAYS, tensor_every=every), tmp_path / "s.zarr"
    _, blocks = frames(schema)
    create(path, schema, {})
    places = []
    original = StoreWriter._write
    monkeypatch.setattr(
        StoreWriter, "_write", lambda self, name, *rest: (places.append((name, rest[0])), original(self, name, *rest))
    )
    writer = StoreWriter(path, schema, flush_seconds=3600)
    for frame in blocks[0]:
        writer.submit(frame)
    writer.close()
    steps = [place[-1] for name, place in places if name == "gradient"]
    chunks = [slice(0, 8), slice(8, 16), slice(16, 23)]
    assert steps == (chunks if every == 1 else [slice(step, step + 1) for step in range(0, 23, 3)])
    assert [name for name, _ in places].count("norm") == 1


@pytest.mark.parametrize("seconds", [0.05, 0.5, 5])
@pytest.mark.parametrize("timesteps", [30, 1000])
def test_a_slow_sampler_writes_no_more_than_two_and_a_half_times_the_bytes(tmp_path, monkeypatch, seconds, timesteps):
    """Sizes as in both.yaml: images of 32 px, four tensors of 16 samples, 20 scalars of 32. The clock is simulated."""
    tensors = [Array(name, "tensor", ABOUT, dims=IMAGE) for name in ("a", "b", "c", "d")]
    scalars = [Array(f"s{i}", "scalar", ABOUT) for i in range(20)]
    schema = Schema(grid(32, timesteps, 32, 32), (*tensors, *scalars), tensor_samples=16)
    values = {array.name: np.zeros((16, 3, 32, 32), np.float32) for array in tensors}
    values |= {array.name: np.zeros(32, np.float32) for array in scalars}
    written = []
    monkeypatch.setattr(StoreWriter, "_refuse_removed", lambda self: None)
    monkeypatch.setattr(StoreWriter, "_write", lambda self, name, where, values: written.append(values.nbytes))
    create(tmp_path / "s.zarr", schema, {})
    writer, now = StoreWriter(tmp_path / "s.zarr", schema), 0.0
    monkeypatch.setattr(writer_module.time, "monotonic", lambda: now)
    for step in range(timesteps):
        due = now + seconds
        while (patience := writer._patience()) is not None and now + patience < due:
            now += patience
            writer._flush_safely(0.5)
        now = due
        writer._accept(Frame((0, 0, 0, 0), 0, step, values))
    writer.close()
    raw = timesteps * sum(array.nbytes for array in values.values())
    assert 1 <= sum(written) / raw <= 2.5


def test_an_error_in_the_thread_is_raised_and_every_frame_is_released(tmp_path):
    schema = Schema(grid(), ARRAYS)
    _, blocks = frames(schema)
    path = tmp_path / "s.zarr"
    create(path, schema, {})
    writer = StoreWriter(path, schema)
    shutil.rmtree(path)
    path.write_text("in the way")
    released = []

    def submit_all():
        for frame in blocks[0] * 50:
            frame.release = lambda: released.append(1)
            writer.submit(frame)
            threading.Event().wait(0.01)

    with pytest.raises(GradscopeError, match="s.zarr was removed while it was recorded"):
        submit_all()
    with pytest.raises(GradscopeError, match="s.zarr was removed while it was recorded"):
        writer.close()
    assert len(released) > 9


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_durable_data_are_on_the_disk_before_their_marker_has_its_name(tmp_path, monkeypatch, codec):
    schema = Schema(grid(), ARRAYS, codec=codec)
    _, blocks = frames(schema)
    path = tmp_path / "s.zarr"
    create(path, schema, {}, durable=True)
    happened = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor):
        happened.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def replaced(source, target):
        happened.append(("name", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    writer = StoreWriter(path, schema, durable=True)
    for frame in blocks[0]:
        writer.submit(frame)
    writer.close()
    names = [i for i, (what, where) in enumerate(happened) if what == "name" and "/written/c." in where]
    assert names
    folders = {"gradient", "norm", "predicted_class", "spectrum"}
    before = {where.removeprefix(f"{path}/") for what, where in happened[: names[0]] if what == "sync"}
    assert folders <= before  # the names of chunks
    assert folders <= {where.split("/")[0] for where in before if "/c." in where}  # and their content
    assert happened[names[0] - 1] == ("sync", f"{happened[names[0]][1]}.partial")
    assert not {what for what, _ in happened} - {"sync", "name"}


def test_without_durable_only_the_roots_metadata_wait_for_the_disk(tmp_path, monkeypatch):
    synced = set()
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.add(os.readlink(f"/proc/self/fd/{descriptor}")))
    schema = Schema(grid(), ARRAYS)
    write(tmp_path / "s.zarr", schema, frames(schema)[1])
    assert synced == {f"{tmp_path}/.s.zarr.partial", f"{tmp_path}/.s.zarr.partial/zarr.json.partial"}


def test_writing_does_not_follow_a_link(tmp_path):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "chunk.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "chunk", b"theirs")
    assert (tmp_path / "mine").read_text() == "kept"
