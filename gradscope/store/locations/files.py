"""Files that appear at once, and files that are nothing but files."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradscope.errors import GradscopeError

MAX_METADATA_BYTES = 64 * 2**20
"""More are not read of one file of metadata."""


@contextmanager
def regular(file: str | Path) -> Iterator[io.FileIO]:
    """Open a file to read it, unbuffered.

    Reading a named pipe would wait for a writer, and opening a device may do anything.

    Raises
    ------
    GradscopeError
        It is no regular file, and no link to one.
    OSError
        It is not there, or cannot be opened.
    """
    check_regular(os.stat(file), file)
    with open(file, "rb", buffering=0, opener=_no_wait) as content:
        check_regular(os.fstat(content.fileno()), file)
        yield content


def check_regular(about: os.stat_result, file: str | Path) -> None:
    """Raise GradscopeError where a file is a pipe, a socket or a device."""
    if not stat.S_ISREG(about.st_mode) and not stat.S_ISDIR(about.st_mode):  # reading a folder raises OSError
        raise GradscopeError(f"{file} is damaged: it is a pipe, a socket or a device, and no file")


def replace_file(file: str | Path, *parts: Any, durable: bool = False) -> None:
    """Write a file that is never seen half written, of parts that give their bytes.

    Durable: when it is named it is on the disk, and its name is when this returns.
    """
    partial = f"{file}.partial"
    try:
        with open(partial, "wb", opener=_no_link) as out:
            for part in parts:
                out.write(part)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        os.replace(partial, file)
    except OSError:
        with suppress(OSError):
            os.unlink(partial)
        raise
    if durable:
        sync(Path(file).parent)


def _no_wait(file: str, flags: int) -> int:
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0))


def _no_link(file: str, flags: int) -> int:
    """Opens a file; where there is a link of this name, what it leads to is not written."""
    return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
