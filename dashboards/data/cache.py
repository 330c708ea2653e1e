"""A cache: each value is made once, and the least recently used values are dropped beyond a limit."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Values by key. Several threads may use it.

    Parameters
    ----------
    limit
        On the sum of the values' weights. The latest value is kept whatever it weighs.
    weigh
        Weight of a value; 1 by default.
    """

    def __init__(self, limit: int, weigh: Callable[[Any], int] = lambda value: 1) -> None:
        self._limit, self._weigh = limit, weigh
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = Lock()
        self.weight = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return the value of a key. Where there is none, one thread makes it and the others wait.

        An error of `make` is raised here and not kept. `make` may get other keys.
        """
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.lock:
            if not entry.made:
                try:
                    entry.value, entry.made = make(), True
                finally:
                    self._settle(key, entry)
            return entry.value

    def _settle(self, key: Hashable, entry: "_Entry") -> None:
        """Weigh a new value and drop old ones beyond the limit; forget a key whose value failed."""
        with self._lock:
            if self._entries.get(key) is not entry:
                return
            if not entry.made:
                del self._entries[key]
                return
            entry.weight = self._weigh(entry.value)
            self.weight += entry.weight
            while self.weight > self._limit and len(self._entries) > 1:
                self.weight -= self._entries.popitem(last=False)[1].weight


class _Entry:
    def __init__(self) -> None:
        self.lock = Lock()
        self.made = False
        self.value: Any = None
        self.weight = 0
        """0 until the value is made."""
