"""Damage in sound stores is found and named."""

import shutil
import struct

import numpy as np
import pytest
import sound_store
import zarr
from sound_store import KINDS, chunk, copied, edit, edit_json, write

from gradscope.errors import GradscopeError
from gradscope.store.locations.location import locate
from gradscope.verification.chunks import examine, touched

stores = sound_store.stores
SUMMED = ("plain", "lz4", "sharded")


def found(path):
    """Array, place and text of every finding."""
    return [(finding.array, finding.place, finding.what) for finding in examine(locate(path)).findings]


def only(path):
    """Array, place and text of the only finding."""
    (finding,) = found(path)
    return finding


@pytest.mark.parametrize("kind", KINDS)
def test_sound_stores_have_no_finding_and_are_read_whole(stores, kind):
    path = stores(kind)
    result = examine(locate(path))
    assert result.findings == []
    assert result.readable
    files = [file for file in path.rglob("*") if file.is_file() and file.name != "zarr.json"]
    assert (result.chunks, result.bytes) == (len(files), sum(file.stat().st_size for file in files))
    if "old" in kind:
        assert "no checksums are recorded" in result.remarks[0]
    else:
        assert result.remarks == []


ARRAYS = ("gradient", "gradient_norm", "written", "image", "label", "classifier", "confusion")


@pytest.mark.parametrize("kind", ["plain", "lz4", "sharded", "old", "old lz4"])
def test_truncated_and_missing_chunks_are_named(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    files = {name: chunk(path, name) for name in ARRAYS}
    for file in files.values():
        edit(file, lambda content: content.__delitem__(slice(-3, None)))
    wrong = {(array, place): what for array, place, what in found(path)}
    assert set(wrong) == {(name, f"{name}/{file.name}") for name, file in files.items()}
    if "old" not in kind:
        for name in ("gradient_norm", "image", "label"):
            size = files[name].stat().st_size
            assert wrong[name, f"{name}/{files[name].name}"] == f"it has {size} bytes, wanted {size + 3}"
    for file in files.values():
        file.unlink()
    wrong = {(array, place) for array, place, what in found(path) if "chunk is missing" in what}
    assert wrong == {(name, f"{name}/{file.name}") for name, file in files.items() if name not in MARKED}


MARKED = ("gradient", "gradient_norm", "image")
"""Their chunks are not checked where the marker's chunk is missing."""


@pytest.mark.parametrize("kind", ["plain", "lz4", "sharded", "old", "old lz4"])
def test_missing_chunks_that_are_marked_are_named(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    files = {name: chunk(path, name) for name in MARKED}
    for file in files.values():
        file.unlink()
    missing = "the chunk is missing, or cannot be read"
    assert sorted(found(path)) == [(name, f"{name}/{file.name}", missing) for name, file in sorted(files.items())]


@pytest.mark.parametrize("kind", SUMMED)
def test_flipped_and_appended_bytes_are_named(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    files = {name: chunk(path, name, -1) for name in ARRAYS}
    places = {(name, f"{name}/{file.name}") for name, file in files.items()}
    sizes = {file: file.stat().st_size for file in files.values()}
    for share in (0, 0.5, 1):

        def flip(share=share):
            for file, size in sizes.items():
                at = int(share * (size - 1))
                edit(file, lambda content, at=at: content.__setitem__(at, content[at] ^ 4))

        flip()
        wrong = found(path)
        assert {(array, place) for array, place, _ in wrong} == places
        assert len(wrong) == len(places)
        assert all("checksum" in what for _, _, what in wrong)
        flip()
    for file in files.values():
        edit(file, lambda content: content.extend(b"abcd"))
    assert {(array, place) for array, place, _ in found(path)} == places


def test_a_damaged_compressed_chunk_without_checksum_is_found_if_it_cannot_be_decoded(stores, tmp_path):
    path = copied(stores("old lz4"), tmp_path)
    file = chunk(path, "gradient")
    edit(file, lambda content: content.__setitem__(slice(4, 8), struct.pack("<I", 2**31 - 1)))  # it claims 2 GB
    array, place, what = only(path)
    assert (array, place) == ("gradient", f"gradient/{file.name}")
    assert what.startswith("it decodes to 2147483647 bytes, wanted ")


def test_a_shard_that_lacks_a_chunk_is_found(stores, tmp_path):
    """The shard's index says so, with a right checksum."""
    path = copied(stores("sharded"), tmp_path)
    array = zarr.open_group(path)["gradient"]
    assert array.shards is not None
    file = chunk(path, "gradient")
    whole = file.read_bytes()
    array.with_config({"write_empty_chunks": False})[0, 0, 0, 0, :2] = np.nan  # a chunk of fill values is left out
    assert file.exists() is False or file.read_bytes() != whole
    assert only(path)[:2] == ("gradient", f"gradient/{file.name}")


CHANGES = {
    "gradient": ("shape", [2, 1, 1, 2, 5, 7, 3, 8, 9]),
    "gradient_norm": ("data_type", "float64"),
    "written": ("dimension_names", ["classifier"]),
    "label": ("fill_value", 0),
    "image": ("codecs", []),
    "seed": ("attributes", {"long_name": "nothing"}),
}


@pytest.mark.parametrize("kind", SUMMED)
def test_metadata_that_disagree_are_named(stores, tmp_path, kind):
    path = copied(stores(kind), tmp_path)
    for name, (key, value) in CHANGES.items():
        edit_json(path / name / "zarr.json", lambda about, key=key, value=value: about.__setitem__(key, value))
    what = "it differs from the copy in zarr.json in"
    assert sorted(found(path)) == sorted((n, f"{n}/zarr.json", f"{what} {key}") for n, (key, _) in CHANGES.items())
    for name in CHANGES:
        (path / name / "zarr.json").write_text("{")
    assert sorted(found(path)) == sorted((n, f"{n}/zarr.json", "it cannot be read as JSON") for n in CHANGES)
    for name in CHANGES:
        (path / name / "zarr.json").unlink()
    assert sorted(found(path)) == sorted((n, f"{n}/zarr.json", "it is missing") for n in CHANGES)


@pytest.mark.parametrize("kind", SUMMED)
@pytest.mark.parametrize(("name", "axis"), [("gradient", 7), ("gradient_norm", 5), ("label", 0), ("image", 4)])
def test_a_wrong_shape_in_both_copies_is_found(stores, tmp_path, kind, name, axis):
    path = copied(stores(kind), tmp_path)

    def lengthen(about):
        about["shape"][axis] += 1

    edit_json(path / name / "zarr.json", lengthen)
    edit_json(path / "zarr.json", lambda root: lengthen(root["consolidated_metadata"]["metadata"][name]))
    array, place, what = found(path)[0]
    assert (array, place) == ("", "zarr.json")
    assert "has" in what
    assert "along" in what or "shape" in what or "length" in what


def test_foreign_arrays_and_files_are_named(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    shutil.copytree(path / "label", path / "other")
    (path / "notes.txt").write_text("x")
    (path / "gradient" / "c.9.9.9.9.9.9.9.9.9").write_bytes(b"x")
    (path / "gradient" / "c.0.0").write_bytes(b"x")
    (path / "gradient" / "c.0.0.0.0.0.0.0.0.0.partial").write_bytes(b"x")
    result = examine(locate(path))
    assert [(f.array, f.place) for f in sorted(result.findings, key=lambda f: f.place)] == [
        ("gradient", "gradient/c.0.0"),
        ("gradient", "gradient/c.9.9.9.9.9.9.9.9.9"),
        ("notes.txt", "notes.txt"),
        ("other", next(f.place for f in result.findings if f.array == "other")),
    ]
    assert result.remarks == ["1 files *.partial, of a process that is writing or was killed: harmless"]


def test_an_array_that_nothing_recorded_is_foreign(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    group = zarr.open_group(path, use_consolidated=False)
    group.create_array("mine", shape=(5,), chunks=(5,), dtype="float32", dimension_names=("sample",))[:] = 1
    with pytest.warns(UserWarning, match="Consolidated metadata"):
        zarr.consolidate_metadata(path)
    edit_json(path / "zarr.json", lambda root: None)
    assert only(path) == ("mine", "mine", "neither the recording nor the evaluation has this array")


@pytest.mark.parametrize("name", ["gradient", "gradient_norm", "image", "alphas_cumprod", "own_accuracy"])
def test_arrays_that_are_missing_are_named(stores, tmp_path, name):
    path = copied(stores("plain"), tmp_path)
    shutil.rmtree(path / name)
    assert {place for array, place, _ in found(path) if array == name} >= {f"{name}/zarr.json"}
    edit_json(path / "zarr.json", lambda root: root["consolidated_metadata"]["metadata"].pop(name))
    assert (name, name, "the array is missing") in found(path)


@pytest.mark.parametrize("kind", ["plain", "sharded", "old"])
@pytest.mark.parametrize(
    ("at", "value", "what"),
    [
        ((1, 0, 0, 1, 3, 4), 2, "it is neither 0, 1 nor 3"),
        ((0, 0, 0, 1, 4, 2), 0, "it is marked, but an earlier step is not"),
        ((0, 0, 0, 1, 4, 2), 3, "it marks a tensor that the configuration does not keep"),
        ((0, 0, 0, 1, 2, 6), 1, "it does not mark a tensor that the configuration keeps"),
        ((0, 0, 0, 1, 2, 6), 0, "it is not marked, but the store's status is complete"),
    ],
)
def test_markers_that_no_recording_writes_are_named(stores, tmp_path, kind, at, value, what):
    path = copied(stores(kind), tmp_path)
    write(path, "written", at, value)
    wrong = {words.split(" (")[0]: place for array, place, words in found(path) if array == "written"}
    assert what in wrong
    if "earlier" not in what:
        assert wrong[what] == f"written at cell {at[:4]}, sample {at[4]}, step {at[5]}"


def test_a_marker_of_missing_chunks_is_found(stores, tmp_path):
    """In an interrupted run, a block that was not begun is marked as written."""
    path = copied(stores("interrupted"), tmp_path)
    missing = {name for name, _, _ in found(path)}
    assert missing == set()
    write(path, "written", (1, 0, 0, 1, slice(0, 2)), 3)
    wrong = found(path)
    names = {name for name, _, what in wrong if what == "the chunk is missing, or cannot be read"}
    assert names == set(zarr.open_group(path).attrs["recorded"]) - {"written"}
    assert ("gradient", "gradient/c.1.0.0.1.0.0.0.0.0", "the chunk is missing, or cannot be read") in wrong


def test_a_store_without_tensors_has_no_marker_of_them(stores, tmp_path):
    path = copied(stores("old"), tmp_path)
    for name in sound_store.NAMES:
        shutil.rmtree(path / name)
        edit_json(path / "zarr.json", lambda root, name=name: root["consolidated_metadata"]["metadata"].pop(name))
    wrong = found(path)
    assert len(wrong) == 8  # blocks with tensors
    assert all(what.startswith("it marks tensors, but the store has none (") for _, _, what in wrong)


def test_a_damaged_root_is_named(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    (path / "zarr.json").write_text("{")
    assert found(path)[0][:2] == ("", "zarr.json")
    shutil.copy(stores("plain") / "zarr.json", path / "zarr.json")
    edit_json(path / "zarr.json", lambda root: root["attributes"].__setitem__("status", "done"))
    assert only(path)[1] == "zarr.json, status"


def test_only_stores_are_examined(stores, tmp_path):
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        examine(locate(tmp_path / "none.zarr"))
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(GradscopeError, match="not one of gradscope's"):
        examine(locate(tmp_path / "other.zarr"))
    path = copied(stores("plain"), tmp_path)
    edit_json(path / "zarr.json", lambda root: root["attributes"].__setitem__("schema_version", 99))
    with pytest.raises(GradscopeError, match="has schema version 99"):
        examine(locate(path))


def test_many_findings_of_an_array_are_not_all_listed(stores, tmp_path):
    path = copied(stores("plain"), tmp_path)
    for number in range(500):
        (path / "label" / f"c.{number + 7}").write_bytes(b"")
    wrong = found(path)
    assert len(wrong) == 21
    assert wrong[-1][2] == "and more of this kind"


def test_touched_chunks_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    for _ in range(50):
        shape = tuple(rng.integers(1, 7, 3))
        origin, size = [int(i) for i in rng.integers(0, 9, 3)], tuple(int(i) for i in rng.integers(1, 5, 3))
        marked = rng.random(shape) < 0.2
        expected = {tuple((o + i) // s for o, i, s in zip(origin, at, size, strict=True)) for at in np.argwhere(marked)}
        assert set(touched(marked, origin, size)) == {tuple(map(int, at)) for at in expected}


@pytest.mark.parametrize("name", ["gradient", "gradient_norm", "image"])
@pytest.mark.parametrize("content", [b"", b"\0" * 7])
def test_a_damaged_chunk_that_nothing_marks_is_found(stores, tmp_path, name, content):
    """After a power failure it may be there; plain xarray cannot read the array. A sound one is no fault."""
    path = copied(stores("interrupted"), tmp_path)
    there = sorted(file for file in (path / name).iterdir() if file.name != "zarr.json")
    last = there[-1].name.split(".")
    unmarked = path / name / ".".join([last[0], *(str(n - 1) for n in zarr.open_group(path)[name].cdata_shape)])
    assert not unmarked.exists()
    shutil.copy(there[0], unmarked)
    assert found(path) == []
    unmarked.write_bytes(content)
    array, place, _ = only(path)
    assert (array, place) == (name, f"{name}/{unmarked.name}")
