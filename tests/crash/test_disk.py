"""What a power failure may leave, by hand for small traces."""

import random

import pytest
from crash.disk import Disk, digest
from crash.tracing import Event


def left(start, *events, hidden="\0", draws=0):
    """All states after a power failure, as sets of (path, content)."""
    disk = Disk(start)
    for event in events:
        disk.apply(event)
    return {frozenset(state.items()) for state in disk.power_failures(hidden, draws, random.Random(0))}


def states(*wanted):
    return {frozenset(state.items()) for state in wanted}


WRITTEN = (Event("create", "a", file=1), Event("write", "a", file=1, data=b"abcd"))
SYNCED = (*WRITTEN, Event("sync", "a", file=1))
FOLDER = (Event("read", "", file=9), Event("sync", "", file=9))


def test_what_is_not_synced_may_be_lost_in_part():
    assert left({}, *WRITTEN) == states({}, {"a": b""}, {"a": b"ab"}, {"a": bytes(4)}, {"a": b"abcd"})


def test_a_synced_file_is_whole_but_its_name_may_be_lost():
    assert left({}, *SYNCED) == states({}, {"a": b"abcd"})
    assert left({}, *SYNCED, *FOLDER) == states({"a": b"abcd"})


def test_synced_names_do_not_save_the_content():
    assert left({}, *WRITTEN, *FOLDER) == states({"a": b""}, {"a": b"ab"}, {"a": bytes(4)}, {"a": b"abcd"})


def test_a_rename_is_done_or_not():
    start = {"a": b"new", "b": b"old"}
    assert left(start, Event("rename", "a", "b")) == states(start, {"b": b"new"})


def test_renames_survive_in_any_order():
    found = left({"a": b"1", "b": b"2"}, Event("rename", "a", "c"), Event("rename", "b", "d"))
    a, b, c, d = ({name: content} for name, content in zip("abcd", (b"1", b"2", b"1", b"2"), strict=True))
    assert found == states(a | b, c | b, a | d, c | d)


def test_an_exchange_has_no_state_between():
    start = {"new": None, "new/x": b"n", "old": None, "old/x": b"o"}
    assert left(start, Event("exchange", "new", "old")) == states(
        start, {"new": None, "new/x": b"o", "old": None, "old/x": b"n"}
    )


def test_a_replaced_file_is_the_old_or_the_new_one_if_it_was_synced_before():
    replaced = Event("rename", "a", "b")
    assert left({"b": b"old"}, *SYNCED, replaced, *FOLDER) == states({"b": b"abcd"})
    assert left({"b": b"old"}, *WRITTEN, replaced, *FOLDER) > states({"b": b"abcd"}, {"b": b""})


def test_what_is_removed_may_come_back():
    assert left({"a": b"1", "b": b"2"}, Event("unlink", "a"), Event("unlink", "b")) == states(
        {}, {"a": b"1"}, {"b": b"2"}, {"a": b"1", "b": b"2"}
    )


def test_a_folder_that_is_lost_takes_its_synced_files_along():
    inside = Event("create", "d/a", file=1), Event("write", "d/a", file=1, data=b"x"), Event("sync", "d/a", file=1)
    folder = Event("read", "d", file=2), Event("sync", "d", file=2)
    assert left({}, Event("mkdir", "d"), *inside, *folder) == states({}, {"d": None, "d/a": b"x"})


def test_hidden_names_are_left_out_until_they_get_a_visible_one():
    made = Event("mkdir", ".x"), Event("create", ".x/a", file=1), Event("create", ".x/b", file=2)
    assert len(left({}, *made, hidden=".")) == 1
    renamed = left({}, *made, Event("rename", ".x", "x"), hidden=".")
    assert {"x/a" in dict(state) for state in renamed} == {True, False}


def test_a_prefix_of_a_write():
    disk = Disk({"a": b"12345678"})
    disk.apply(Event("open", "a", file=1))
    disk.apply(Event("write", "a", file=1, at=2, data=b"abc"), most=2)
    assert disk.now() == {"a": b"12ab5678"}
    disk.apply(Event("truncate", "a", file=1, at=3))
    assert disk.now() == {"a": b"12a"}


def test_more_combinations_than_can_be_listed_are_drawn():
    events = [Event("create", name, file=number) for number, name in enumerate("abcdefghij")]
    found = left({}, *events, draws=50)
    assert 20 < len(found) < 2**10
    assert states({}) < found
    assert {frozenset(dict.fromkeys("abcdefghij", b"").items())} < found


@pytest.mark.parametrize(("path", "seen"), [("s/c.0.partial", False), ("s/.evaluation.partial", True), ("s/c.0", True)])
def test_the_content_of_half_written_files_is_not_seen(path, seen):
    assert (digest({"s": None, path: b"1"}) != digest({"s": None, path: b"2"})) == seen
    assert digest({"s": None, path: b"1"}) != digest({"s": None})
    assert digest({".s": None, ".s/x": b"1"}, ".s") == digest({".s": None, ".s/y": b"2"}, ".s")
