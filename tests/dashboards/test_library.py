"""The library: runs by key, and broken stores beside the others."""

import shutil
from pathlib import Path

import pytest
import small_store

from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_run import OpenRun
from gradscope.errors import GradscopeError

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
        "damaged: it does not say",
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
