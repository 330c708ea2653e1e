"""The time in which a store is recorded into: how it begins, whom it keeps out, and how it ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.store.creation import create
from gradscope.store.locations.location import Location
from gradscope.store.progress import finished, refuse_other
from gradscope.store.replacement import clear
from gradscope.store.root import set_attributes
from gradscope.store.schema import Schema


def begin(
    location: Location, schema: Schema, attributes: Mapping[str, Any], overwrite: bool = False, resume: bool = False
) -> None:
    """Make the store, or see that it is the one of this schema; set the attributes on it.

    Raises
    ------
    GradscopeError
        The store cannot be made or continued, or another process records into it.
    """
    if not resume:
        create(location, schema, {**attributes, "status": "recording"}, overwrite)
        return
    with location.lock():
        refuse_other(location, schema)
        set_attributes(location, attributes)


@contextmanager
def recording(location: Location, advice: str = "") -> Iterator[None]:
    """While it is open no other process can record into the store; left, the store says how it ended.

    An error that goes through it gets a note of how far the recording came, and `advice`.
    """
    with location.lock():
        clear(location)
        set_attributes(location, {"status": "recording"})
        try:
            yield
        except BaseException as error:
            _interrupted(location, error, advice)
            raise
        set_attributes(location, {"status": "complete"})


def _interrupted(location: Location, error: BaseException, advice: str) -> None:
    unreachable: tuple[type[Exception], ...] = (GradscopeError, *location.errors)
    with suppress(*unreachable):  # a full disk
        set_attributes(location, {"status": "interrupted"})
    with suppress(*unreachable):  # a store that was removed
        done = finished(location)
        error.add_note(f"{int(done.sum())} of {done.size} blocks are recorded in {location}; {advice}".rstrip("; "))
