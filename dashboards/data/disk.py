"""What a store takes on disk."""

import os
from collections.abc import Iterator
from pathlib import Path


def sizes(store: Path, names: list[str]) -> dict[str, int]:
    """Bytes of the files of each array; of one whose files come and go at this moment, those that were there."""
    return {name: sum(_files(store / name)) for name in names}


def readable(size: float) -> str:
    """Bytes in the unit that suits them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _files(folder: Path) -> Iterator[int]:
    for where, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(where, name)).st_size
            except FileNotFoundError:  # replaced while it was looked at
                continue
