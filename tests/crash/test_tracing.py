"""The trace of a folder holds every change: without one of them it rebuilds another folder."""

import os
import shutil
import sys
from pathlib import Path

import pytest
from crash import tracing
from crash.disk import Disk, state_of
from crash.tracing import CHANGES, Call, traced
from crash.workloads import record

_AUDITED = {"os.rename": "rename", "os.remove": "unlink", "os.mkdir": "mkdir", "os.rmdir": "rmdir", "os.link": "link"}
_heard: list[tuple[str, str]] = []
_listens: list[Path] = []


def _listen(event: str, arguments: tuple) -> None:
    """Note names that change in the folder, from the interpreter itself; a hook cannot be removed."""
    if not _listens:
        return
    folder = str(_listens[0])
    if event == "open" and isinstance(arguments[0], str) and arguments[0].startswith(folder):
        if arguments[2] & os.O_CREAT:
            _heard.append(("create", arguments[0][len(folder) + 1 :]))
    elif event in _AUDITED:
        at = arguments[1] if event in ("os.remove", "os.rmdir") else -1  # an open folder, in which the name is
        path = os.path.join(os.readlink(f"/proc/self/fd/{at}") if at >= 0 else "", os.fsdecode(arguments[0]))
        if path.startswith(folder):
            _heard.append((_AUDITED[event], path[len(folder) + 1 :]))


sys.addaudithook(_listen)


@pytest.mark.slow
def test_a_recording_is_rebuilt_from_its_trace_byte_for_byte(tmp_path):
    _heard.clear()
    _listens.append(tmp_path)
    try:
        with traced(tmp_path) as trace:
            record(tmp_path)
            record(tmp_path, overwrite=True, seed=1)
    finally:
        _listens.clear()
    disk = Disk({})
    for event in trace.events:
        disk.apply(event)
    assert disk.now() == state_of(tmp_path)
    assert {event.kind for event in trace.events} >= {*CHANGES} - {"link", "truncate"}
    for kind in ("rename", "unlink", "rmdir"):
        heard = sorted(path for what, path in _heard if what == kind)
        assert heard == sorted(event.path for event in trace.events if event.kind == kind), kind
    for kind in ("create", "mkdir"):  # the interpreter also tells of folders that exist already
        assert {e.path for e in trace.events if e.kind == kind} <= {path for what, path in _heard if what == kind}


@pytest.mark.parametrize("missed", range(4))
def test_a_trace_that_misses_an_event_rebuilds_another_folder(tmp_path, missed):
    real = os.rename, os.mkdir, os.unlink, tracing.io.open
    with traced(tmp_path) as trace:
        work(tmp_path, *(None if number != missed else function for number, function in enumerate(real)))
    try:
        disk = Disk({})
        for event in trace.events:
            disk.apply(event)
    except KeyError:  # a later event is about a file that the trace does not know
        return
    assert disk.now() != state_of(tmp_path)


def work(folder, rename, mkdir, unlink, opened):
    """Change files through each traced function, or one that is given in its place."""
    with (opened or open)(folder / "a", "wb") as file:
        file.write(b"x" * 10_000)
        file.seek(10)
        file.write(b"y")
        file.truncate(9000)
    with (folder / "a").open("ab") as file:
        file.write(b"z")
    with (folder / "a").open("r+") as text:
        text.write("text")
    descriptor = os.open(folder / "b", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"bytes")
    os.ftruncate(descriptor, 3)
    os.close(descriptor)
    (rename or os.rename)(folder / "b", folder / "c")
    (mkdir or os.mkdir)(folder / "d")
    (folder / "e").touch()
    os.link(folder / "c", folder / "f")
    (folder / "f").write_bytes(b"of both")
    (unlink or os.unlink)(folder / "e")
    (folder / "gone" / "deep").mkdir(parents=True)
    (folder / "gone" / "deep" / "file").write_text("x")
    shutil.rmtree(folder / "gone")


def test_every_way_to_write_is_seen(tmp_path):
    with traced(tmp_path) as trace:
        work(tmp_path, None, None, None, None)
    disk = Disk({})
    for event in trace.events:
        disk.apply(event)
    assert disk.now() == state_of(tmp_path)
    assert disk.now()["c"] == disk.now()["f"] == b"of both"
    assert len(disk.now()["a"]) == 9001


def test_a_fault_is_the_result_of_one_call(tmp_path):
    def fault(call):
        if call == Call("rename", "b", 1):
            raise OSError(5, "as planned")

    with traced(tmp_path, fault) as trace:
        for name in "acd":
            (tmp_path / name).write_text(name)
        os.rename(tmp_path / "a", tmp_path / "b")
        with pytest.raises(OSError, match="as planned"):
            os.replace(tmp_path / "c", tmp_path / "b")
        os.replace(tmp_path / "d", tmp_path / "b")
    assert state_of(tmp_path) == {"b": b"d", "c": b"c"}
    assert [event.kind for event in trace.events].count("rename") == 2
    assert [call.number for call in trace.calls if call.kind == "rename"] == [0, 1, 2]
