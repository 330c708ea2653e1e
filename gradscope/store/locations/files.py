"""Write files atomically, and read only regular files."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from gradscope.errors import GradscopeError

MAX_METADATA_BYTES = 64 * 2**20
"""Largest metadata file that is read."""


@contextmanager
def regular(file: str | Path) -> Iterator[io.FileIO]:
    """Open a regular file for unbuffered reading.

    A named pipe would block until something writes into it, and opening a device can have any effect. A link may lead
    to another chunk, whose checksum is right.

    Raises
    ------
    GradscopeError
        It is not a regular file.
    OSError
        It does not exist or cannot be opened.
    """
    check_regular(os.lstat(file), file)
    with open(file, "rb", buffering=0, opener=_no_wait) as content:
        check_regular(os.fstat(content.fileno()), file)
        yield content


def check_regular(about: os.stat_result, file: str | Path) -> None:
    """Raise GradscopeError if a file, described by `os.lstat`, is not a regular one."""
    if not stat.S_ISREG(about.st_mode):
        raise GradscopeError(f"{file} is damaged: it is a {_kind(about.st_mode)}, not a file")


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "pipe, a socket or a device"


def replace_file(file: str | Path, *parts: Any, durable: bool = False) -> None:
    """Write a file from parts, each a buffer of bytes, so that readers never see it half written.

    With `durable` the content reaches the disk before the file gets its name, and the name before this returns.
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
    return os.open(file, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0))


def _no_link(file: str, flags: int) -> int:
    """Open a file, but do not follow a link: its target must not be overwritten."""
    return os.open(file, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def sync_all(folder: Path) -> None:
    """Flush the files and names of a folder, and of all folders in it, to disk."""
    for inner, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(inner, name))
        sync(Path(inner))


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
