"""Chunks read directly from their files equal those that zarr reads."""

import os
from pathlib import Path

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec

from gradscope.errors import GradscopeError
from gradscope.store import chunks as module
from gradscope.store.arrays import _CODECS
from gradscope.store.chunks import Chunks

SHAPE, CHUNKS = (3, 7, 23, 2, 5), (1, 4, 10, 2, 5)


def make(path, codec="none", dtype="float32", chunks=CHUNKS, separator=".", endian="little"):
    group = zarr.create_group(path, zarr_format=3)
    array = group.create_array(
        "a",
        shape=SHAPE,
        chunks=chunks,
        dtype=dtype,
        fill_value=7,
        compressors=_CODECS[codec],
        serializer=BytesCodec(endian=endian),
        chunk_key_encoding={"name": "default", "separator": separator},
    )
    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    array[:2] = values[:2]  # the last chunks are never written
    values[2] = 7
    return values


@pytest.fixture(params=["plain", "lz4", "int16", "big endian", "folders", "split images"])
def stored(request, tmp_path):
    """Values and chunks of arrays that are stored in different ways, and whether their files are read directly."""
    kind = request.param
    options = {
        "lz4": {"codec": "lz4"},
        "int16": {"dtype": "int16"},
        "big endian": {"endian": "big"},
        "folders": {"separator": "/"},
        "split images": {"chunks": (1, 4, 10, 1, 3)},
    }
    values = make(tmp_path / "s.zarr", **options.get(kind, {}))
    array = zarr.open_group(tmp_path / "s.zarr", mode="r")["a"]
    return values, Chunks(tmp_path / "s.zarr", array), kind not in ("lz4", "big endian")


def test_chunks_are_read_as_zarr_reads_them(stored, monkeypatch):
    values, chunks, straight = stored
    calls = []
    original = zarr.Array.__getitem__
    monkeypatch.setattr(zarr.Array, "__getitem__", lambda self, where: calls.append(where) or original(self, where))
    np.testing.assert_array_equal(chunks.whole(), values)
    seen = np.zeros(SHAPE, dtype=int)
    for index in chunks:
        np.testing.assert_array_equal(chunks.read(index), values[chunks.place(index)])
        seen[chunks.place(index)] += 1
    assert (seen == 1).all()
    assert bool(calls) is not straight


def test_neighbours_of_an_element_are_those_of_its_chunk(stored):
    values, chunks, _ = stored
    for at in [(0, 0, 0), (1, 5, 17), (0, 6, 22), (1, 3, 9), (2, 1, 4)]:
        block = chunks.around(at)
        first = at[2] - at[2] % 10
        np.testing.assert_array_equal(block, values[at[0], at[1], first : first + 10])
        np.testing.assert_array_equal(block[at[-1] % chunks.size[2]], values[at])
    np.testing.assert_array_equal(chunks.around((1, 6)), values[1, 4:7])
    np.testing.assert_array_equal(chunks.around((1,)), values[1:2])


def test_a_stamp_changes_when_the_chunk_is_written(tmp_path):
    make(tmp_path / "s.zarr")
    array = zarr.open_group(tmp_path / "s.zarr", mode="r+")["a"]
    chunks = Chunks(tmp_path / "s.zarr", array)
    before = {index: chunks.stamp(index) for index in chunks}
    assert before[2, 0, 0, 0, 0] is None
    array[1, 5, 12] = 3
    array[2, 6, 22] = 3
    changed = {index for index in chunks if chunks.stamp(index) != before[index]}
    assert changed == {chunks.index((1, 5, 12)), (2, 1, 2, 0, 0)}


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_damaged_chunk_is_named(tmp_path, codec):
    make(tmp_path / "s.zarr", codec)
    chunks = Chunks(tmp_path / "s.zarr", zarr.open_group(tmp_path / "s.zarr", mode="r")["a"])
    file = tmp_path / "s.zarr" / "a" / "c.1.1.0.0.0"
    file.write_bytes(file.read_bytes()[:100])
    for read in (lambda: chunks.read((1, 1, 0, 0, 0)), lambda: chunks.around((1, 5, 3)), chunks.whole):
        with pytest.raises(GradscopeError, match="s.zarr/a.* is damaged"):
            read()
    assert chunks.read((1, 0, 0, 0, 0)).shape == (1, 4, 10, 2, 5)


SELECTIONS = [
    (),
    (1,),
    (1, 5, 17, 1, 3),
    (slice(None), 2),
    (1, slice(3, 6), slice(8, 21)),
    (slice(0, 3, 2), slice(1, 7, 3), slice(2, 23, 7)),
    (0, slice(None), 12, slice(1, 2), slice(0, 5, 2)),
    (0, 6, slice(9, 9)),
    (2, slice(0, 2)),
]


@pytest.mark.parametrize("run_bytes", [4, 40, 2**16])
@pytest.mark.parametrize("where", SELECTIONS)
def test_selections_are_those_of_numpy(stored, where, run_bytes, monkeypatch):
    monkeypatch.setattr(module, "_RUN_BYTES", run_bytes)
    values, chunks, _ = stored
    got = Chunks(Path(chunks._folder).parent, chunks.array).select(where)
    assert got.dtype == values.dtype
    np.testing.assert_array_equal(got, values[where])


def test_only_the_requested_part_of_a_large_chunk_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_RUN_BYTES", 40)  # an element of the third dimension
    values = make(tmp_path / "s.zarr")
    chunks = Chunks(tmp_path / "s.zarr", zarr.open_group(tmp_path / "s.zarr", mode="r")["a"])
    file = tmp_path / "s.zarr" / "a" / "c.1.0.1.0.0"
    file.write_bytes(file.read_bytes()[: (2 * 10 + 7) * 40])  # elements after [1, 2, 16] are cut off
    np.testing.assert_array_equal(chunks.select((1, slice(0, 2), slice(None, 20))), values[1, :2, :20])
    np.testing.assert_array_equal(chunks.select((1, slice(0, 3), 16)), values[1, :3, 16])
    with pytest.raises(GradscopeError, match="is damaged"):
        chunks.select((1, slice(0, 3), 17))


@pytest.mark.parametrize("kind", [{}, {"codec": "lz4"}, {"dtype": "int16"}, {"endian": "big"}, {"separator": "/"}])
@pytest.mark.parametrize(
    "where",
    [
        (0, slice(4, 7), slice(10, 20)),  # whole chunks, the first of them beyond the array's end
        (1, slice(0, 7), slice(20, 23)),
        (2,),
        (slice(0, 2), slice(0, 4), slice(0, 23)),
        (1, slice(0, 4), slice(10, 15)),  # a part
        (1, slice(2, 4), slice(10, 20)),
    ],
)
def test_chunks_are_written_as_zarr_writes_them(tmp_path, kind, where):
    for name in ("ours", "zarr"):
        make(tmp_path / name, **kind)
    arrays = [zarr.open_group(tmp_path / name, mode="r+")["a"] for name in ("ours", "zarr")]
    new = np.arange(np.prod(SHAPE)).reshape(SHAPE)[where].astype(arrays[0].dtype)
    Chunks(tmp_path / "ours", arrays[0]).write(where, new)
    arrays[1][where] = new
    np.testing.assert_array_equal(arrays[0][where], new)
    files = [{p.relative_to(tmp_path / n): p.read_bytes() for p in (tmp_path / n).rglob("*") if p.is_file()}
             for n in ("ours", "zarr")]  # fmt: skip
    assert files[0] == files[1]


def test_a_failed_write_leaves_the_earlier_chunk(tmp_path, monkeypatch):
    values = make(tmp_path / "s.zarr")
    chunks = Chunks(tmp_path / "s.zarr", zarr.open_group(tmp_path / "s.zarr", mode="r+")["a"])

    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    before = sorted((tmp_path / "s.zarr" / "a").iterdir())
    with pytest.raises(OSError, match="No space left"):
        chunks.write((0, slice(0, 4), slice(0, 10)), np.zeros((4, 10, 2, 5), dtype=np.float32))
    assert sorted((tmp_path / "s.zarr" / "a").iterdir()) == before
    np.testing.assert_array_equal(chunks.whole(), values)
