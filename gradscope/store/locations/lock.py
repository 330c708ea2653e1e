"""Locks on files: the system gives them back when their process ends, however it ends."""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from gradscope.errors import GradscopeError
from gradscope.store.locations.files import regular

_TRIES, _PAUSE = 5, 0.1  # whoever asks `is_locked` holds the file for a moment

if sys.platform == "win32":  # has no such locks: a recording that was killed looks like one that goes on

    def _take(file: int, shared: bool) -> bool:
        return not shared
else:
    import fcntl

    _NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # of a file system

    def _take(file: int, shared: bool) -> bool:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return not shared
        return True


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock of an existing file; gives False where another process has it."""
    with ExitStack() as stack:
        file: BinaryIO | FileIO = stack.enter_context(regular(path))
        for i in range(_TRIES):
            if i:
                time.sleep(_PAUSE)
            try:
                taken = _take(file.fileno(), shared=False)
            except OSError as error:
                if error.errno != errno.EBADF:
                    raise
                file = stack.enter_context(path.open("r+b"))  # NFS locks alone only what can be written
                taken = _take(file.fileno(), shared=False)
            if taken:
                break
        yield taken


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of this file."""
    try:
        with regular(path) as file:
            return not _take(file.fileno(), shared=True)
    except (OSError, GradscopeError):
        return False
