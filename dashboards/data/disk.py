"""Bytes of a store's arrays on disk."""

import os
from collections.abc import Iterator
from pathlib import Path


def disk_sizes(store: Path, names: list[str]) -> dict[str, int]:
    """Bytes of each array's files; files that vanish meanwhile count as nothing."""
    return {name: sum(_file_sizes(store / name)) for name in names}


def readable_size(size: float) -> str:
    """Bytes in the unit that suits them: ``1.5 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def _file_sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # a recording run replaced it
                continue
