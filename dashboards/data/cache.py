"""Values that are made once, and dropped when there are too many of them."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")


class Cache:
    """Values by key; beyond a limit the least recently used are dropped. Several threads may use it.

    Parameters
    ----------
    limit
        On the sum of what the values weigh. The latest value is kept whatever it weighs.
    weigh
        What a value weighs; all weigh 1 by default.
    """

    def __init__(self, limit: int, weigh: Callable[[Any], int] = lambda value: 1) -> None:
        self._limit, self._weigh = limit, weigh
        self._entries: OrderedDict[Hashable, _Entry] = OrderedDict()
        self._lock = Lock()
        self.weight = 0

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """The value of a key, made where there is none: by one thread, while others that want it wait.

        What `make` raises is raised here and not kept. It may ask for other keys.
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
        """Count a value that was made, forget one that was not, and drop what is too much."""
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
