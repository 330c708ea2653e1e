"""One open leaderboard: its dataset in memory, and values computed from it."""

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

import xarray as xr

from dashboards.data.cache import Cache
from dashboards.data.remote import StoreAddress, root_stamp
from gradscope.errors import GradscopeError

_MEMO_SIZE = 32
"""Computed values that are kept for one store."""
T = TypeVar("T")


class OpenLeaderboard:
    """A leaderboard, read into memory. Several threads may use it.

    Raises
    ------
    GradscopeError
        The path has no leaderboard, or one that is too large.
    """

    live = False

    def __init__(self, path: StoreAddress, key: str) -> None:
        self.path, self.key = path, key
        self._lock = Lock()
        self._read()

    def _read(self) -> None:
        from gradscope.analysis.oracle import open_leaderboard  # scipy takes a second to load

        self._stamp = root_stamp(self.path)
        self.ds: xr.Dataset = open_leaderboard(self.path)
        self._memo = Cache(_MEMO_SIZE)

    def refresh(self) -> bool:
        """Read the store again if it was replaced; True if it was. If it cannot be read, all stays as it was."""
        with self._lock:
            if root_stamp(self.path) == self._stamp:
                return False
            try:
                self._read()
            except GradscopeError:
                return False
            return True

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, computed once."""
        return self._memo.get(key, make)

    def scalars(self, *names: str) -> Any:
        """A leaderboard has no cells with samples along t."""
        raise GradscopeError(f"{self.path} holds a leaderboard, not a recorded run")
