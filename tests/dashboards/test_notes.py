"""Notes beside a store: what is kept, what is refused, and that the store stays as it was."""

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from dashboards.data import notes
from dashboards.data.notes import add_note, delete_note, notes_file, read_notes, why_no_notes
from gradscope.errors import GradscopeError

VIEW = "trajectory?store=5f0c&cell=3&t=499&sample=12&cells=1f&variables=gradient_norm,log_prob"


@pytest.fixture
def store(tmp_path):
    """Stands for a store."""
    folder = tmp_path / "a b.zarr"
    folder.mkdir()
    return folder


def tree(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_notes_lie_beside_the_store_and_come_back(copy):
    before = tree(copy)
    add_note(copy, VIEW, "First: <b>π</b> \n 'two'")
    add_note(copy, "run?store=5f0c", "second")
    assert tree(copy) == before
    assert notes_file(copy).name == "s.zarr.notes.json"
    kept = json.loads(notes_file(copy).read_text())["notes"]
    assert [note["text"] for note in kept] == ["First: <b>π</b> \n 'two'", "second"]
    first, second = read_notes(copy)
    assert (first.view, first.written[:2]) == (VIEW, "20")
    assert [note.id for note in delete_note(copy, first.id)] == [second.id]
    assert [note.text for note in read_notes(copy)] == ["second"]
    assert sorted(path.name for path in copy.parent.iterdir()) == ["s.zarr", "s.zarr.notes.json"]


def test_several_writers_lose_nothing(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: add_note(store, "run?store=a", str(number)), range(24)))
    assert sorted(int(note.text) for note in read_notes(store)) == list(range(24))


@pytest.mark.parametrize(
    "view",
    ["javascript:alert(1)", "//evil.test/?x", "https://evil.test/?a", "run?a=<b>", "run", "run?a=b\n", "", "run?x#y:z"],
)
def test_what_is_no_view_of_ours_is_refused(store, view):
    with pytest.raises(ValueError, match="view"):
        add_note(store, view, "text")
    assert not notes_file(store).exists()


@pytest.mark.parametrize("text", ["", "x" * (notes.TEXT_MAX + 1)])
def test_the_length_is_bounded(store, text):
    with pytest.raises(ValueError, match="text"):
        add_note(store, VIEW, text)


def test_the_number_is_bounded(store, monkeypatch):
    monkeypatch.setattr(notes, "NOTES_MAX", 2)
    add_note(store, VIEW, "1")
    add_note(store, VIEW, "2")
    with pytest.raises(GradscopeError, match="a b.zarr has 2 notes already"):
        add_note(store, VIEW, "3")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not a file of notes"),
        (b"\xff\xfe", "is not a file of notes"),
        (b'{"notes": [{"id": "0", "view": "run?a=b", "text": "x", "written": ""}]}', "notes.0.id"),
        (b'{"notes": [], "more": 1}', "more: Extra inputs"),
        (b'{"notes": [' + b"[" * 100_000, "is not a file of notes"),
        (b" " * (notes.FILE_MAX + 1), "more than"),
    ],
)
def test_a_file_that_is_not_ours_is_neither_read_nor_replaced(store, content, message):
    notes_file(store).write_bytes(content)
    for go in (read_notes, lambda path: add_note(path, VIEW, "x"), lambda path: delete_note(path, "0")):
        with pytest.raises(GradscopeError, match=message):
            go(store)
    assert notes_file(store).read_bytes() == content


def test_a_pipe_is_not_read(store):
    os.mkfifo(notes_file(store))
    with pytest.raises(GradscopeError, match="pipe"):
        read_notes(store)
    assert stat.S_ISFIFO(notes_file(store).stat().st_mode)


def test_where_nothing_can_be_written_it_says_so(store, monkeypatch):
    assert why_no_notes(store) == ""
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert why_no_notes(store).endswith(f"and {store.parent} cannot be written.")

    def refuse(*parts, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(notes, "replace_file", refuse)
    with pytest.raises(GradscopeError, match=r"notes.json cannot be written: Permission denied"):
        add_note(store, VIEW, "x")
