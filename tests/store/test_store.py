"""A store is written by frames and read by plain xarray."""

import errno
import fcntl
import os
import shutil
import threading
import time
import warnings
from collections import namedtuple

import google_crc32c
import numpy as np
import pytest
import xarray as xr
import zarr

from gradscope.errors import GradscopeError
from gradscope.store import (
    Array,
    Frame,
    Grid,
    Schema,
    StoreWriter,
    add_variables,
    create,
    creation,
    open_store,
    replacement,
    set_attributes,
)
from gradscope.store import schema as module
from gradscope.store import writer as writer_module
from gradscope.store.locations.files import replace_file
from gradscope.store.locations.location import locate
from gradscope.store.locations.lock import exclusive, is_locked
from gradscope.store.session import begin

IMAGE = ("channel", "height", "width")
ABOUT = {"long_name": "something", "units": "1", "equation": "x"}
ARRAYS = (
    Array("gradient", "tensor", ABOUT, dims=IMAGE),
    Array("norm", "scalar", ABOUT),
    Array("predicted_class", "scalar", ABOUT, dtype="int16"),
    Array("spectrum", "scalar", ABOUT, dims=("frequency",), sizes={"frequency": 5}),
    Array("image", "final", ABOUT, dims=IMAGE),
)


def grid(samples=7, timesteps=23, batch_size=4, size=4):
    return Grid(
        classifier=("robust", "non_robust"),
        classifier_input=("x_t",),
        stabilizer=("none", "adam"),
        guidance_scale=(0.4,),
        label=np.arange(samples) % 3,
        seed=np.arange(samples) + 100,
        timestep=np.arange(timesteps)[::-1] * 10,
        alphas_cumprod=np.linspace(0, 1, timesteps),
        sigma=np.linspace(1, 0, timesteps),
        sample_shape=(3, size, size),
        batch_size=batch_size,
    )


def frames(schema, seed=0):
    """Random values of a whole run, block by block, with the full arrays for comparison."""
    rng = np.random.default_rng(seed)
    whole = {}
    for array in schema.arrays:
        values = (
            rng.integers(0, 9, schema.shape(array)) if array.dtype == "int16" else rng.normal(size=schema.shape(array))
        )
        whole[array.name] = values.astype(array.dtype)
    blocks = []
    for cell in np.ndindex(schema.grid.cells):
        for first in range(0, schema.grid.samples, schema.grid.batch_size):
            rows = slice(first, min(first + schema.grid.batch_size, schema.grid.samples))
            kept = slice(first, first + schema.kept_samples(first, rows.stop - first))
            block = []
            for step in range(schema.grid.timesteps):
                arrays = {a.name: whole[a.name][(*cell, rows, step)] for a in schema.scalars}
                if schema.keeps_tensor(step) and kept.stop > kept.start:
                    arrays |= {a.name: whole[a.name][(*cell, kept, step)] for a in schema.tensors}
                if step == schema.grid.timesteps - 1:
                    arrays |= {a.name: whole[a.name][(*cell, rows)] for a in schema.finals}
                block.append(Frame(cell, first, step, arrays))
            blocks.append(block)
    return whole, blocks


def write(path, schema, blocks):
    create(path, schema, {"status": "recording"})
    writer = StoreWriter(path, schema)
    for block in blocks:
        for frame in block:
            writer.submit(frame)
    writer.close()
    return writer


def test_schemas_are_read_by_plain_xarray_without_a_warning(tmp_path):
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    write(tmp_path / "s.zarr", schema, blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(tmp_path / "s.zarr")
    dims = ("classifier", "classifier_input", "stabilizer", "guidance_scale", "sample", "timestep")
    assert ds["gradient"].dims == (*dims, *IMAGE)
    assert ds["norm"].dims == dims
    assert ds["spectrum"].dims == (*dims, "frequency")
    assert ds["image"].dims == (*dims[:-1], *IMAGE)
    assert list(ds["classifier"].values) == ["robust", "non_robust"]
    assert {"step", "alphas_cumprod", "sigma", "label", "seed"} <= set(ds.coords)
    assert ds["sigma"].dims == ("timestep",)
    assert ds["label"].dims == ("sample",)
    for name in ds.variables:
        assert ds[name].attrs["long_name"]
        assert ds[name].attrs["units"]
    for name, values in whole.items():
        np.testing.assert_array_equal(ds[name].values, values)
    assert (ds["written"] == 3).all()
    assert ds["norm"].sel(classifier="robust", stabilizer="adam", timestep=220).shape == (1, 1, 7)


@pytest.mark.parametrize(("samples", "timesteps", "batch_size"), [(1, 1, 32), (5, 10, 5), (13, 61, 4), (9, 50, 3)])
@pytest.mark.parametrize(("tensor_samples", "tensor_every"), [(64, 1), (3, 1), (64, 7), (5, 3), (0, 1)])
def test_written_values_are_read_back(tmp_path, samples, timesteps, batch_size, tensor_samples, tensor_every):
    schema = Schema(grid(samples, timesteps, batch_size, size=2), ARRAYS, tensor_samples, tensor_every)
    whole, blocks = frames(schema)
    write(tmp_path / "s.zarr", schema, blocks)
    ds = open_store(tmp_path / "s.zarr")
    kept = (np.arange(samples)[:, None] < tensor_samples) & (np.arange(timesteps) % tensor_every == 0)
    np.testing.assert_array_equal(ds["written"].values, np.broadcast_to(np.where(kept, 3, 1), ds["written"].shape))
    expected = np.where(kept[..., None, None, None], whole["gradient"], np.nan)
    np.testing.assert_array_equal(ds["gradient"].values, expected)
    for name in ("norm", "predicted_class", "spectrum", "image"):
        np.testing.assert_array_equal(ds[name].values, whole[name])


@pytest.mark.parametrize("steps", [0, 1, 9, 10, 11, 22])
def test_a_partly_written_store_is_masked_exactly(tmp_path, steps):
    """The second block of the third cell ends after some steps; then the writer is closed, as after an exception."""
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    partial = [*blocks[:5], blocks[5][:steps]]
    write(tmp_path / "s.zarr", schema, partial)
    there = np.zeros((2, 1, 2, 1, 7, 23), dtype=bool)
    for block in partial:
        for frame in block:
            there[(*frame.cell, slice(frame.first_sample, min(frame.first_sample + 4, 7)), frame.step)] = True
    ds = open_store(tmp_path / "s.zarr")
    np.testing.assert_array_equal(ds["written"].values > 0, there)
    np.testing.assert_array_equal(ds["norm"].values, np.where(there, whole["norm"], np.nan).astype("float32"))
    np.testing.assert_array_equal(ds["predicted_class"].values, np.where(there, whole["predicted_class"], -1))
    masked = np.where(there[..., None, None, None], whole["gradient"], np.nan)
    np.testing.assert_array_equal(ds["gradient"].values, masked.astype("float32"))
    assert ds["predicted_class"].dtype == np.int16


def test_masking_goes_by_the_marker_and_never_by_nan(tmp_path):
    """A recorded NaN stays, and values without the marker are masked."""
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    whole["norm"][0, 0, 0, 0, 0, 0] = np.nan
    write(tmp_path / "s.zarr", schema, blocks)
    zarr.open_group(tmp_path / "s.zarr", mode="r+")["written"][1, 0, 1, 0, 2, 5] = 0
    ds = open_store(tmp_path / "s.zarr")
    assert np.isnan(ds["norm"].values[0, 0, 0, 0, 0, 0])
    assert ds["written"].values[0, 0, 0, 0, 0, 0] == 3
    assert np.isnan(ds["norm"].values[1, 0, 1, 0, 2, 5])
    assert np.isnan(ds["gradient"].values[1, 0, 1, 0, 2, 5]).all()


def test_everything_exists_before_the_first_step_and_nothing_is_resized(tmp_path):
    schema = Schema(grid(), ARRAYS)
    create(tmp_path / "s.zarr", schema, {"status": "recording"})
    empty = xr.open_zarr(tmp_path / "s.zarr")
    sizes, names = dict(empty.sizes), set(empty.variables)
    assert (empty["written"] == 0).all()
    assert np.isnan(open_store(tmp_path / "s.zarr")["gradient"].values).all()
    _, blocks = frames(schema)
    writer = StoreWriter(tmp_path / "s.zarr", schema)
    for frame in blocks[0]:
        writer.submit(frame)
    writer.close()
    ds = xr.open_zarr(tmp_path / "s.zarr")
    assert (dict(ds.sizes), set(ds.variables)) == (sizes, names)
    group = zarr.open_group(tmp_path / "s.zarr")
    assert all(array.metadata.dimension_names for _, array in group.arrays())


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


def test_chunks_never_reach_over_a_block_and_stay_near_a_megabyte():
    for batch_size in (1, 2, 3, 5, 7, 8, 12, 32, 100):
        for size in (8, 32, 64, 256, 1024):
            for every in (1, 5):
                schema = Schema(grid(200, 100, batch_size, size), ARRAYS, tensor_every=every)
                samples, steps = schema.tensor_chunk
                step_bytes = 3 * size**2 * 4
                assert schema.grid.block % samples == 0
                assert samples * steps * step_bytes <= max(2**20, step_bytes)
                assert every == 1 or steps == 1
                assert samples == 1 or steps in (100, 1)  # a chunk of several samples holds all timesteps
                assert steps == 1 or 2 * steps * step_bytes > 2**20 or steps == 100
                assert schema.chunks(ARRAYS[1]) == (1, 1, 1, 1, batch_size, 50)


def test_timesteps_are_spread_evenly_over_the_chunks():
    assert Schema(grid(4, 1000, 4, 32), ARRAYS).tensor_chunk == (1, 84)  # twelve chunks; one could hold 85 timesteps
    assert Schema(grid(4, 86, 4, 32), ARRAYS).tensor_chunk == (1, 43)


def test_estimated_bytes_are_the_bytes_of_the_arrays(tmp_path):
    schema = Schema(grid(), ARRAYS)
    whole, blocks = frames(schema)
    writer = write(tmp_path / "s.zarr", schema, blocks)
    assert schema.bytes() == sum(v.nbytes for v in whole.values()) + 2 * 2 * 7 * 23
    assert writer.bytes >= schema.bytes()


def test_codec_and_key_encoding_are_explicit(tmp_path):
    for codec, name in (("none", None), ("lz4", "blosc")):
        path = tmp_path / f"{codec}.zarr"
        schema = Schema(grid(), ARRAYS, codec=codec)
        whole, blocks = frames(schema)
        write(path, schema, blocks)
        group = zarr.open_group(path)
        compressors = group["gradient"].compressors
        assert [c.to_dict()["name"] for c in compressors] == [*([name] if name else []), "crc32c"]
        assert [c.to_dict()["name"] for c in group["norm"].compressors] == ["crc32c"]
        assert (path / "gradient" / "c.0.0.0.0.0.0.0.0.0").is_file()
        np.testing.assert_array_equal(group["gradient"][...], whole["gradient"])


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


def test_only_a_store_is_overwritten_and_only_on_request(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {"run_id": "old"})
    with pytest.raises(GradscopeError, match="exists; choose another path"):
        create(path, schema, {"run_id": "new"})
    assert xr.open_zarr(path).attrs["run_id"] == "old"
    create(path, schema, {"run_id": "new"}, overwrite=True)
    assert xr.open_zarr(path).attrs["run_id"] == "new"
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "photo.jpg").write_text("precious")
    with pytest.raises(GradscopeError, match="is not a zarr store, so it is not overwritten"):
        create(folder, schema, {}, overwrite=True)
    assert (folder / "photo.jpg").read_text() == "precious"


def test_a_store_larger_than_the_free_space_is_refused(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(GradscopeError, match="the store needs .* MB and .* has 0.0 MB free; lower tensor_") as refused:
        create(tmp_path / "s.zarr", Schema(grid(), ARRAYS), {})
    assert "free; lower recording.tensor_samples, raise recording.tensor_every" in refused.value.for_command()
    assert not (tmp_path / "s.zarr").exists()


def test_variables_and_attributes_are_added_and_replaced(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {"status": "recording"})
    for value in (0.25, 0.75):
        accuracy = xr.Dataset({"own_accuracy": (("classifier",), np.full(2, value), ABOUT)})
        add_variables(path, accuracy)
        np.testing.assert_array_equal(xr.open_zarr(path)["own_accuracy"].values, [value, value])
    set_attributes(path, {"status": "complete"})
    assert xr.open_zarr(path).attrs["status"] == "complete"


def test_added_variables_bring_their_coordinates_and_replace_what_is_named(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {})
    before = set(xr.open_zarr(path).variables)
    names = np.array(["baseball", "soccer ball"], dtype=object)
    shares = np.arange(4.0).reshape(2, 2)
    added = xr.Dataset(
        {"share": (("classifier", "class"), shares, ABOUT), "floor": ((), 0.5, ABOUT)},
        coords={"class": ("class", names, ABOUT)},
        attrs={"evaluation": "by hand"},
    )
    add_variables(path, added)
    ds = xr.open_zarr(path)
    assert ds.attrs["evaluation"] == "by hand"
    assert ds["share"].sel({"class": "soccer ball"}).values.tolist() == [1, 3]
    assert ds["classifier"].values.tolist() == ["robust", "non_robust"]
    assert ds["floor"].shape == ()
    assert float(ds["floor"]) == 0.5
    assert ds["class"].attrs == ABOUT
    add_variables(path, added[["floor"]], instead_of=list(added.variables))
    assert set(xr.open_zarr(path).variables) == before | {"floor"}


def test_large_added_variables_are_chunked(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {})
    monkeypatch.setattr(replacement, "_CHUNK_BYTES", 100)
    values = np.arange(2 * 3 * 7).reshape(2, 3, 7).astype(np.int64)
    add_variables(path, xr.Dataset({"large": (("a", "b", "c"), values, ABOUT)}))
    assert zarr.open_group(path)["large"].chunks == (1, 1, 7)
    np.testing.assert_array_equal(xr.open_zarr(path)["large"], values)


def test_what_is_not_a_store_is_refused_by_name(tmp_path):
    with pytest.raises(GradscopeError, match="nothing.zarr is not a zarr store"):
        open_store(tmp_path / "nothing.zarr")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(GradscopeError, match="but not one of gradscope's"):
        open_store(tmp_path / "other.zarr")
    create(tmp_path / "later.zarr", Schema(grid(), ARRAYS), {})
    set_attributes(tmp_path / "later.zarr", {"schema_version": 99})
    with pytest.raises(GradscopeError, match="schema version 99, this gradscope reads up to 2"):
        open_store(tmp_path / "later.zarr")


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_durable_data_are_on_the_disk_before_their_marker_has_its_name(tmp_path, monkeypatch, codec):
    schema = Schema(grid(), ARRAYS, codec=codec)
    _, blocks = frames(schema)
    path = tmp_path / "s.zarr"
    create(path, schema, {})
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
    assert {"zarr.json", *(f"{name}/zarr.json" for name in (*folders, "written", "timestep"))} <= before
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


def test_chunks_carry_the_checksum_of_zarrs_codec(tmp_path):
    for codec in ("none", "lz4"):
        path, schema = tmp_path / f"{codec}.zarr", Schema(grid(), ARRAYS, codec=codec)
        write(path, schema, frames(schema)[1])
        for name in ("gradient", "norm", "written"):
            content = (path / name / ("c.0.0.0.0.0.0" + ".0.0.0" * (name == "gradient"))).read_bytes()
            assert content[-4:] == google_crc32c.value(content[:-4]).to_bytes(4, "little")
        file = path / "norm" / "c.0.0.0.0.0.0"
        content = bytearray(file.read_bytes())
        content[5] ^= 1
        file.write_bytes(bytes(content))
        with pytest.raises(ValueError, match="checksum"):
            xr.open_zarr(path)["norm"].load()


def test_a_store_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {"run_id": "old"})
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    monkeypatch.setattr(creation, "set_attributes", lambda *rest: 1 / 0)
    for where in (path, tmp_path / "t.zarr"):
        with pytest.raises(ZeroDivisionError):
            create(where, schema, {"run_id": "new"}, overwrite=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


def test_a_store_that_could_not_be_opened_is_not_created(tmp_path):
    """A variable of a user's own probe has a name of gradscope's, but other dimensions."""
    arrays = (*ARRAYS, Array("entropy", "scalar", ABOUT, dims=("frequency",), sizes={"frequency": 5}))
    with pytest.raises(GradscopeError, match=r"s.zarr, array entropy: its dimensions are .*, wanted: "):
        create(tmp_path / "s.zarr", Schema(grid(), arrays), {})
    assert not list(tmp_path.iterdir())


def test_a_store_created_in_the_meantime_is_not_replaced(tmp_path, monkeypatch):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    refuse, first = creation.refuse_path, []

    def late(where, overwrite):
        refuse(where, overwrite)
        if not first:
            first.append(where)
            create(path, schema, {"run_id": "theirs"})

    monkeypatch.setattr(creation, "refuse_path", late)
    with pytest.raises(GradscopeError, match=r"s.zarr exists; choose another path"):
        create(path, schema, {"run_id": "ours"})
    assert open_store(path).attrs["run_id"] == "theirs"
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


def test_two_processes_do_not_create_the_same_store(tmp_path):
    schema, location = Schema(grid(), ARRAYS), locate(tmp_path / "s.zarr")
    with location.made() as new:
        create(new.path, schema, {})
        with pytest.raises(GradscopeError, match=r"s.zarr: another process is creating it"):
            create(location, schema, {})
    assert open_store(location).attrs["schema_version"] == 2


def test_a_store_is_not_resumed_while_it_is_overwritten(tmp_path):
    schema, location = Schema(grid(), ARRAYS), locate(tmp_path / "s.zarr")
    create(location, schema, {})
    with location.made(overwrite=True) as new:
        create(new.path, schema, {"run_id": "new"})
        with pytest.raises(GradscopeError, match="another process is recording into it"):
            begin(location, schema, {}, resume=True)
    assert open_store(location).attrs["run_id"] == "new"


def test_a_link_to_a_store_is_overwritten_where_it_leads(tmp_path):
    schema, link = Schema(grid(), ARRAYS), tmp_path / "link.zarr"
    create(tmp_path / "there" / "s.zarr", schema, {})
    link.symlink_to(tmp_path / "there" / "s.zarr")
    for run in ("second", "third"):
        create(link, schema, {"run_id": run}, overwrite=True)
        assert link.is_symlink()
        assert open_store(tmp_path / "there" / "s.zarr").attrs["run_id"] == run
    assert [file.name for file in (tmp_path / "there").iterdir()] == ["s.zarr"]


def test_what_gradscope_did_not_record_is_not_overwritten(tmp_path):
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(GradscopeError, match="not a store that gradscope recorded"):
        create(tmp_path / "other.zarr", Schema(grid(), ARRAYS), {}, overwrite=True)


def test_an_evaluation_beside_a_recording_keeps_its_status(tmp_path, monkeypatch):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {"status": "recording"})
    made = replacement.create_array

    def slowly(*arguments, **settings):
        set_attributes(path, {"status": "complete"})
        return made(*arguments, **settings)

    monkeypatch.setattr(replacement, "create_array", slowly)
    add_variables(path, xr.Dataset({"mine": ("sample", np.arange(7))}, attrs={"evaluation": "{}"}))
    assert open_store(path).attrs["status"] == "complete"
    assert open_store(path).attrs["evaluation"] == "{}"


def test_an_evaluation_does_not_read_the_metadata_of_arrays_that_it_leaves(tmp_path):
    path = tmp_path / "s.zarr"
    create(path, Schema(grid(), ARRAYS), {})
    (path / "gradient" / "zarr.json").write_text("{")
    for value in (1, 2):
        add_variables(path, xr.Dataset({"mine": ("sample", np.full(7, value))}))
        assert (open_store(path)["mine"] == value).all()


def test_writing_does_not_follow_a_link(tmp_path):
    (tmp_path / "mine").write_text("kept")
    (tmp_path / "chunk.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OSError, match="symbolic links"):
        replace_file(tmp_path / "chunk", b"theirs")
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_lock_that_needs_a_file_open_for_writing_is_taken(tmp_path, monkeypatch):
    """NFS behaves like this."""
    file, flock, modes = tmp_path / "file", fcntl.flock, []
    file.touch()

    def remote(descriptor, operation):
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        if operation & fcntl.LOCK_EX and modes[-1] == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", remote)
    with exclusive(file) as ours:
        assert ours
        assert is_locked(file)
        with exclusive(file) as theirs:
            assert not theirs
    assert not is_locked(file)
    assert os.O_RDWR in modes
