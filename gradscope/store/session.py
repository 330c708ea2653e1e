"""Begin a recording, keep other processes out of its store, and set the store's status when it ends."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from gradscope.errors import GradscopeError
from gradscope.store.creation import create
from gradscope.store.locations.location import Location, StorePath, locate, writing
from gradscope.store.progress import finished, refuse_other
from gradscope.store.replacement import JOURNAL, clear
from gradscope.store.root import set_attributes
from gradscope.store.schema import Schema


def begin(
    location: Location,
    schema: Schema,
    attributes: Mapping[str, Any],
    overwrite: bool = False,
    resume: bool = False,
    durable: bool = False,
) -> None:
    """Create a store, or with `resume` check that it has this schema; set its attributes.

    With `durable` all that the store holds is flushed to disk.

    Raises
    ------
    GradscopeError
        The store cannot be created or resumed, or another process records into it.
    """
    if not resume:
        create(location, schema, {**attributes, "status": "recording"}, overwrite, durable)
        return
    with location.lock():
        refuse_other(location, schema)
        with writing(location):
            location.clean()
            if durable:
                location.sync()
        set_attributes(location, attributes)


@contextmanager
def recording(location: Location, advice: str = "") -> Iterator[None]:
    """Lock a store for recording. On exit its status becomes ``complete``, or ``interrupted`` after an error.

    An error gets a note with the number of recorded blocks and `advice`.
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


def remove_leftovers(where: StorePath) -> None:
    """Remove what a process left beside a complete store, or of its evaluation, unless another process records."""
    location = locate(where)
    with writing(location):
        location.clean()
    if location.read(JOURNAL) is not None and not (location.path is not None and location.locked()):
        with location.lock():
            clear(location)


def _interrupted(location: Location, error: BaseException, advice: str) -> None:
    unreachable: tuple[type[Exception], ...] = (GradscopeError, *location.errors)
    with suppress(*unreachable):  # a full disk
        set_attributes(location, {"status": "interrupted"})
    with suppress(*unreachable):  # a store that was removed
        done = finished(location)
        error.add_note(f"{int(done.sum())} of {done.size} blocks are recorded in {location}; {advice}".rstrip("; "))
