"""Bytes of a store's arrays on disk."""

import os
from collections.abc import Iterator
from pathlib import Path


def disk_sizes(store: Path, names: list[str]) -> dict[str, int]:
    """Bytes of each array's files; files that vanish meanwhile count as nothing."""
    return {name: sum(_file_sizes(store / name)) for name in names}


def _file_sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # a recording run replaced it
                continue
