"""Finished groups of cells on disk, from which an interrupted leaderboard goes on."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradscope.errors import GradscopeError

Values = dict[str, NDArray[Any]]
_CONFIGURATION = "configuration.json"


def folder_of(store: Path) -> Path:
    """Folder of the finished groups of a store that is not written yet."""
    return store.with_name(f"{store.name}.parts")


class Parts:
    """A folder beside the store, with one file for each finished group.

    Parameters
    ----------
    store
        Path of the store. None: nothing is kept.
    configuration
        What the numbers depend on.

    Raises
    ------
    GradscopeError
        The folder holds groups of another configuration.
    """

    def __init__(self, store: Path | None, configuration: Mapping[str, Any]) -> None:
        self.folder = None if store is None else folder_of(store)
        if self.folder is None:
            return
        text = json.dumps(configuration, sort_keys=True)
        known = self.folder / _CONFIGURATION
        if known.is_file():
            if known.read_text() != text:
                raise GradscopeError(
                    f"{self.folder} holds part of a leaderboard of another configuration; remove it, or choose another "
                    "path",
                    key="--out",
                )
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        known.write_text(text)

    def once(self, make: Callable[[], Values], *key: str) -> Values:
        """The values of a group; made, and kept, unless they are there."""
        path = self._path(key)
        if path is None:
            return make()
        if not path.is_file():
            partial = path.with_suffix(".partial")
            with partial.open("wb") as file:
                np.savez(file, allow_pickle=False, **make())
            os.replace(partial, path)  # a killed process leaves no half of a group
        with np.load(path, allow_pickle=False) as found:
            return dict(found)

    def _path(self, key: tuple[str, ...]) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]  # names may hold any character
        return self.folder / f"{digest}.npz"
