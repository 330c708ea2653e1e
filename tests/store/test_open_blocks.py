"""Several blocks at the same time, steps that are left out, and stores that grow."""

from dataclasses import replace
from itertools import zip_longest

import numpy as np
import pytest
import xarray as xr
import zarr
from random_store import ARRAYS, frames, grid

from gradscope.errors import GradscopeError
from gradscope.store import Schema, StoreWriter, create, open_store
from gradscope.store import replacement as replacement_module
from gradscope.store import schema as schema_module
from gradscope.store import writer as writer_module
from gradscope.store.locations.location import locate
from gradscope.store.replacement import clear, grow
from gradscope.verification.verify import verify


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Tensors in chunks of one sample and eight of the 23 steps; scalars in chunks of five."""
    monkeypatch.setattr(schema_module, "_TENSOR_CHUNK_BYTES", 10 * 3 * 4 * 4 * 4)
    monkeypatch.setattr(schema_module, "_SCALAR_CHUNK_STEPS", 5)


def same(ds, whole, where=()):
    for name, values in whole.items():
        np.testing.assert_array_equal(ds[name].values[where], values[where], err_msg=name)


@pytest.mark.parametrize("flush_seconds", [0.0, 3600.0])
def test_steps_of_eight_blocks_in_turn_lose_nothing(tmp_path, flush_seconds):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    whole, blocks = frames(schema)
    create(path, schema, {})
    writer = StoreWriter(path, schema, flush_seconds=flush_seconds)
    for turn in zip_longest(*blocks):
        for frame in turn:
            writer.submit(frame)
    writer.close()
    ds = open_store(path)
    assert (ds["written"] == 3).all()
    same(ds, whole)


def test_blocks_inside_others_lose_nothing(tmp_path):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    whole, blocks = frames(schema)
    create(path, schema, {})
    writer = StoreWriter(path, schema)
    outer, *inner = blocks
    for frame in outer[:13]:
        writer.submit(frame)
    for frame in (frame for block in inner for frame in block):
        writer.submit(frame)
    for frame in outer[13:]:
        writer.submit(frame)
    writer.close()
    same(open_store(path), whole)


@pytest.mark.parametrize("steps", [[0, 1, 2, 9, 10, 22], [7], [4, 5], [0, 22], [3, 4, 8, 15, 16], [*range(12, 23)]])
@pytest.mark.parametrize("flush_seconds", [0.0, 3600.0])
def test_steps_that_are_left_out_stay_unwritten_and_harm_no_other(tmp_path, steps, flush_seconds):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    whole, blocks = frames(schema)
    create(path, schema, {})
    writer = StoreWriter(path, schema, flush_seconds=flush_seconds)
    for frame in blocks[0]:  # whole, so that its values could leak into the next block
        writer.submit(frame)
    for step in steps:
        writer.submit(blocks[1][step])
    writer.close()
    ds = open_store(path)
    there = np.zeros((3, 23), bool)
    there[:, steps] = True
    cell = (0, 0, 0, 0, slice(4, 7))
    np.testing.assert_array_equal(ds["written"].values[cell] == 3, there)
    plain = xr.open_zarr(path)
    for name in ("gradient", "norm", "spectrum"):
        values = plain[name].values[cell]
        np.testing.assert_array_equal(values[there], whole[name][cell][there], err_msg=name)
        assert np.isnan(values[~there]).all(), name
    same(ds, whole, (0, 0, 0, 0, slice(4)))


def test_steps_out_of_order_and_after_the_end_are_errors(tmp_path, monkeypatch):
    schema = Schema(grid(), ARRAYS)
    _, blocks = frames(schema)
    for name, sent, why in [
        ("a", [blocks[0][5], blocks[0][3]], "step 3 came after 5"),
        ("b", [*blocks[0], blocks[1][0], blocks[0][22]], "came after its block was closed"),
    ]:
        create(tmp_path / name, schema, {})
        writer = StoreWriter(tmp_path / name, schema)
        for frame in sent:
            writer.submit(frame)
        with pytest.raises(GradscopeError, match=why):
            writer.close()
    monkeypatch.setattr(writer_module, "OPEN", 2)
    create(tmp_path / "c", schema, {})
    writer = StoreWriter(tmp_path / "c", schema)
    for block in blocks[:3]:
        for frame in block[:9]:  # never ended
            writer.submit(frame)
    writer.submit(blocks[1][9])
    writer.submit(blocks[0][9])  # closed, since two others are open
    with pytest.raises(GradscopeError, match="at most 2 are recorded at the same time"):
        writer.close()
    marker = open_store(tmp_path / "c")["written"].values
    assert (marker[0, 0, 0, 0, :4, :9] == 3).all()


def larger(schema):
    """The schema with another guide and three more samples."""
    more = grid(samples=12)
    return replace(schema, grid=replace(more, classifier=("robust", "non_robust", "third")))


@pytest.mark.slow
def test_a_store_grows_between_steps_and_keeps_what_it_has(tmp_path):
    small = Schema(grid(samples=4), ARRAYS)
    big, path = larger(small), tmp_path / "s.zarr"
    whole, blocks = frames(big)
    create(path, small, {"status": "recording"})
    writer = StoreWriter(path, small)
    place = {(frame.cell, frame.first_sample): block for block in blocks for frame in block[:1]}
    first = place[(0, 0, 0, 0), 0]
    for frame in first[:13]:
        writer.submit(frame)
    grow(path, big, {"note": 3})
    writer.grow(big)
    for frame in first[13:]:
        writer.submit(frame)
    for block in blocks:
        if block is not first:
            for frame in block:
                writer.submit(frame)
    writer.close()
    ds = open_store(path)
    same(ds, whole)
    assert ds["classifier"].values.tolist() == ["robust", "non_robust", "third"]
    assert ds.sizes["sample"] == 12
    assert ds.attrs["note"] == 3
    assert not [key for key, _ in locate(path).listing() if "partial" in key]
    for name in ("written", "gradient", "image", "classifier"):  # each array says the same as the root
        assert zarr.open_array(path / name, mode="r").shape == tuple(ds.sizes[dim] for dim in ds[name].dims)
    assert {found.array for found in verify(path).findings} <= {"predicted_class"}  # random values have no range


@pytest.mark.slow
@pytest.mark.parametrize("killed_at", range(12))
def test_a_kill_while_growing_leaves_the_old_or_the_new_store(tmp_path, monkeypatch, killed_at):
    small = Schema(grid(samples=4), ARRAYS)
    big, path = larger(small), tmp_path / "s.zarr"
    whole, blocks = frames(small)
    create(path, small, {"status": "recording"})
    writer = StoreWriter(path, small)
    for frame in (frame for block in blocks for frame in block):
        writer.submit(frame)
    writer.close()

    class Killed(BaseException):
        pass

    location, count = locate(path), 0
    original = type(location).replace

    def counted(self, key, content):
        nonlocal count
        if count == killed_at:
            raise Killed
        count += 1
        original(self, key, content)

    with monkeypatch.context() as patched:
        patched.setattr(type(location), "replace", counted)
        patched.setattr(replacement_module, "clear", lambda location: None)  # a killed process clears nothing
        with pytest.raises(Killed):
            grow(path, big, {})
    ds = open_store(path)
    assert ds.sizes["sample"] in (4, 12)
    assert len(ds["classifier"]) == (2 if ds.sizes["sample"] == 4 else 3)
    same(ds.isel(classifier=slice(2), sample=slice(4)), whole)
    clear(location)
    grow(path, big, {})
    same(open_store(path).isel(classifier=slice(2), sample=slice(4)), whole)
    assert {found.array for found in verify(path).findings} <= {"predicted_class"}  # random values have no range
