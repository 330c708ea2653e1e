"""Files that appear at once."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any


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
