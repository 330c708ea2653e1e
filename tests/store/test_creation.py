"""Creating a store: complete or not at all, never over something else, by one process at a time."""

import errno
import fcntl
import os
import shutil
import threading
from collections import namedtuple

import pytest
import xarray as xr
import zarr
from crash.tracing import Call, traced
from random_store import ABOUT, ARRAYS, grid

from gradscope.errors import GradscopeError
from gradscope.store import (
    Array,
    Schema,
    create,
    creation,
    open_store,
)
from gradscope.store.derived import save
from gradscope.store.locations.folder import Folder
from gradscope.store.locations.location import locate
from gradscope.store.locations.lock import exclusive, is_locked
from gradscope.store.session import begin


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
    with pytest.raises(GradscopeError, match="the store needs .* kB and .* has 1 kB free; lower tensor_") as refused:
        create(tmp_path / "s.zarr", Schema(grid(), ARRAYS), {})
    assert "free; lower recording.tensor_samples, raise recording.tensor_every" in refused.value.for_command()
    assert not (tmp_path / "s.zarr").exists()


def test_a_store_appears_complete_or_not_at_all(tmp_path, monkeypatch):
    schema, path = Schema(grid(), ARRAYS), tmp_path / "s.zarr"
    create(path, schema, {"run_id": "old"})
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    fill = Folder.fill

    def fails(folder, files):
        fill(folder, dict([*files.items()][:5]))
        raise ZeroDivisionError

    monkeypatch.setattr(Folder, "fill", fails)
    for where in (path, tmp_path / "t.zarr"):
        with pytest.raises(ZeroDivisionError):
            create(where, schema, {"run_id": "new"}, overwrite=True)
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["s.zarr"]


@pytest.mark.parametrize(
    "make",
    [
        lambda path: create(path, Schema(grid(), ARRAYS), {}),
        lambda path: save(xr.Dataset({name: ("row", [1.0]) for name in "abcdefgh"}), path),
    ],
)
def test_nothing_goes_on_writing_after_an_error(tmp_path, make):
    """Only the thread that waits for the end writes, in which an error is the end; nothing is left."""
    threads, calls = set[int](), list[Call]()

    def fault(call):
        threads.add(threading.get_ident())
        calls.append(call)
        if call.kind == "write" and len(calls) > 20:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    with pytest.raises(GradscopeError, match=r"s\.zarr .*: Input/output error"), traced(tmp_path, fault):
        make(tmp_path / "s.zarr")
    assert threads == {threading.get_ident()}
    assert not list(tmp_path.iterdir())


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
    assert open_store(location).attrs["schema_version"] == 3


@pytest.mark.slow
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
