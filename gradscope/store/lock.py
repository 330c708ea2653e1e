"""Locks on files: the system gives them back when their process ends, however it ends."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TRIES, _PAUSE = 5, 0.1  # whoever asks `is_locked` holds the file for a moment

if sys.platform == "win32":  # has no such locks: a recording that was killed looks like one that goes on

    def _take(file: int, shared: bool) -> bool:
        return not shared
else:
    import fcntl

    def _take(file: int, shared: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a file system without locks
            return not shared
        return True


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of an existing file; gives False where another process has it."""
    with path.open("rb") as file:
        for i in range(_TRIES):
            if i:
                time.sleep(_PAUSE)
            if taken := _take(file.fileno(), shared=False):
                break
        yield taken


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    try:
        with path.open("rb") as file:
            return not _take(file.fileno(), shared=True)
    except OSError:
        return False
