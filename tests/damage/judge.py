"""What readers and `verify` say of a damaged store."""

import random
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from damage.faults import FLIPPED, TRUNCATED, Fault

from gradscope.errors import GradscopeError
from gradscope.store import open_store
from gradscope.store.locations.location import locate
from gradscope.verification.chunks import examine
from gradscope.verification.metadata import Metadata
from gradscope.verification.verify import verify

SECONDS = 10
"""After these, a reader hangs."""
RIGHT, FOUND, BELIEVED, UNCLEAR, HUNG = "right", "found", "believed", "unclear error", "hung"
WHOLE = 50
"""One in this number of the faults that a part of `verify` finds is verified as a whole."""


class Hung(BaseException):
    """Reading takes too long."""


@dataclass(frozen=True)
class Verdict:
    """What readers make of a fault, and whether `verify` finds it."""

    read: str
    """`RIGHT`: what was recorded; `FOUND`: an error of ours; `BELIEVED`: other values; `UNCLEAR`; `HUNG`."""
    verified: str
    said: str = ""

    @property
    def is_good(self) -> bool:
        """Whether readers refuse it or read what was recorded, and `verify` finds it."""
        return self.read in (RIGHT, FOUND) and self.verified == FOUND


class Judge:
    """Damages a store, asks, and mends it."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.files = {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}
        with _opened() as opened:
            self._truth = read(store)
        self._read = {name for name in self.files if str(store / name) in opened}
        """Files that reading opens: the content of others cannot change what is read."""
        assert len(self._read) > len(self.files) / 2
        assert verify(store).findings == ()
        self._random = random.Random(0)

    def judge(self, fault: Fault) -> Verdict:
        """Judge one fault."""
        fault.make(self.store, self.files[fault.file])
        try:
            read_, said = _ask(self._reads, fault)
            verified, also = _ask(self._verifies, fault)
        finally:
            fault.undo(self.store, self.files[fault.file])
        return Verdict(read_, verified, f"{said} | {also}")

    def _reads(self, fault: Fault) -> str:
        if fault.kind in (FLIPPED, TRUNCATED) and fault.file not in self._read:
            return RIGHT
        return RIGHT if read(self.store) == self._truth else BELIEVED

    def _verifies(self, fault: Fault) -> str:
        """Ask the parts of `verify`, the fastest first: what one finds, the whole finds, unless it fails later."""
        parts: tuple[Callable[[], bool], ...] = (
            lambda: any(Metadata(locate(self.store)).findings()),
            lambda: bool(examine(locate(self.store)).findings),
        )
        if self._random.randrange(WHOLE) and any(part() for part in parts):
            return FOUND
        return FOUND if verify(self.store).findings else BELIEVED


def read(store: Path) -> dict[str, Any]:
    """All that a store holds, comparable: attributes, and of each variable its dimensions, type and bytes."""
    ds = open_store(store, dask=False)
    found: dict[str, Any] = {"attributes": dict(ds.attrs)}
    for name, variable in ds.variables.items():
        values = np.asarray(variable.values)
        content = values.tolist() if values.dtype.kind in "OTU" else values.tobytes()
        found[str(name)] = (variable.dims, values.dtype.kind, values.shape, content, dict(variable.attrs))
    return found


def _ask(question: Callable[[Fault], str], fault: Fault) -> tuple[str, str]:
    """The answer, and the text of an error."""
    try:
        with _limited():
            return question(fault), ""
    except GradscopeError as error:
        return FOUND, str(error)
    except Hung:
        return HUNG, ""
    except Exception as error:
        return UNCLEAR, repr(error)


@contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise Hung

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_watchers: list[set[str]] = []


@contextmanager
def _opened() -> Iterator[set[str]]:
    """Paths of the files that are opened in the meantime."""
    found: set[str] = set()
    if not _watchers:
        sys.addaudithook(_note)  # it cannot be removed
    _watchers.append(found)
    try:
        yield found
    finally:
        _watchers[:] = [set()]


def _note(event: str, arguments: Any) -> None:
    if event == "open" and _watchers and isinstance(arguments[0], str):
        _watchers[-1].add(arguments[0])
