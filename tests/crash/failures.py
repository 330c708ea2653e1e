"""Let single calls of a running workload fail; judge the message and the store."""

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

from crash.disk import State, state_of
from crash.points import Count, Run
from crash.tracing import Call

from gradscope.errors import GradscopeError, GradscopeWarning

_SPACE = ("create", "write", "mkdir", "rename", "link", "sync")
_NAMES = ("create", "open", "read", "mkdir", "rmdir", "rename", "exchange", "link", "unlink")
_ANY = (*_NAMES, "write", "truncate", "sync")
FAILURES = {"ENOSPC": _SPACE, "EIO": _ANY, "EACCES": _NAMES}
"""Kinds of calls that may fail so. A disk that is full stays full; the other failures happen once."""


class Failure:
    """Raises an error in place of one call, and of all later ones that need space if the disk is full."""

    def __init__(self, call: Call, name: str) -> None:
        self._call, self._full = call, name == "ENOSPC"
        self.number = getattr(errno, name)
        self.happened = False

    def __call__(self, call: Call) -> None:
        self.happened |= call == self._call
        if call == self._call or (self.happened and self._full and call.kind in _SPACE):
            raise OSError(self.number, os.strerror(self.number), call.path)


def failed(run: Run, name: str, count: Count, most: int | None = None) -> Iterator[State]:
    """Let each call fail, or a random choice of `most`.

    Yields what is left, and notes in `count` what the user is not told clearly.
    """
    calls = [call for call in run.calls if call.kind in FAILURES[name]]
    if most is not None and most < len(calls):
        calls = random.Random(run.name).sample(calls, most)
    for call in calls:
        failure, home = Failure(call, name), run.begun()
        error = _error(run, home, failure)
        count.points += 1
        if not failure.happened:
            count.faults.append(f"{run.name}: {call} did not happen again")
        if what := _unclear(error, failure.number):
            count.faults.append(f"{run.name}: {name} at {call.kind} {call.path}, {call.number}: {what}")
        if error is None and (wrong := run.case.unfinished(home)):
            count.faults.append(f"{run.name}: {name} at {call.kind} {call.path}, {call.number}: no error, but {wrong}")
        yield state_of(home)


def _error(run: Run, home: Path, failure: Failure) -> BaseException | None:
    try:
        run.traced(home, fault=failure)
    except Exception as error:
        return error
    return None


def _unclear(error: BaseException | None, number: int) -> str:
    """What is wrong with the message that a user gets; empty if it is clear, or if there is none."""
    if error is None:
        return ""
    text = str(error)
    if not isinstance(error, GradscopeError | GradscopeWarning):
        return f"{type(error).__name__}: {text}"
    return "" if os.strerror(number) in text else text
