"""Bytes of a store's arrays on disk."""

import os
from collections.abc import Iterator
from pathlib import Path

from dashboards.data.remote import StoreAddress


def disk_sizes(store: StoreAddress, names: list[str]) -> dict[str, int]:
    """Bytes of each array's files or objects; files that vanish meanwhile count as nothing."""
    if not isinstance(store, Path):
        sizes = dict.fromkeys(names, 0)
        for key, size in store.listing():
            sizes |= {name: sizes[name] + size for name in [key.partition("/")[0]] if name in sizes}
        return sizes
    return {name: sum(_file_sizes(store / name)) for name in names}


def _file_sizes(folder: Path) -> Iterator[int]:
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                yield os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:  # a recording run replaced it
                continue
