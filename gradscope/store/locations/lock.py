"""Locks on files, which the system releases when their process ends, even if it is killed.

The package filelock does not do: it truncates its file and must be able to write it, while here the locked file is a
store's own, and readers of a store that they cannot write must see whether it is locked.
"""

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

_TRIES, _PAUSE = 5, 0.1  # `is_locked` in another process holds the lock for a moment

if sys.platform == "win32":  # has no such locks: a killed recording looks like a running one

    def _take(file: int, shared: bool) -> bool:
        return not shared
else:
    import fcntl

    _NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # file systems without locks

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
    """Hold the exclusive lock of an existing file; yields False if another process holds it."""
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
                file = stack.enter_context(path.open("r+b"))  # NFS locks only files that are open for writing
                taken = _take(file.fileno(), shared=False)
            if taken:
                break
        yield taken


def is_locked(path: Path) -> bool:
    """Whether a process holds the exclusive lock of a file."""
    try:
        with regular(path) as file:
            return not _take(file.fileno(), shared=True)
    except (OSError, GradscopeError):
        return False
