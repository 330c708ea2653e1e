"""Two open stores whose cells are compared: the base of figures that read both."""

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from dashboards.data.library import Library, Opened
from dashboards.data.open_run import OpenRun
from gradscope.errors import GradscopeError

_BETWEEN = "~"
"""Stands between the two keys."""
T = TypeVar("T")


class TwoRuns:
    """The store of cell a, and that of cell b. It can take the place of an `OpenRun` in a `Call`."""

    def __init__(self, run: OpenRun, other: OpenRun) -> None:
        self.run, self.other = run, other
        self.key = f"{run.key}{_BETWEEN}{other.key}"
        """Name of the pair in URLs."""
        self.ds, self.path = run.ds, run.path

    def memo(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what `make` returns, computed once for each version of the two stores."""
        return self.run.memo((self.other.key, self.other.version, key), make)

    def scalars(self, *names: str) -> Any:
        """See `OpenRun.scalars`, of the first store."""
        return self.run.scalars(*names)


Drawn = Opened | TwoRuns
"""What a figure can show."""


def two_runs(library: Library, key: str) -> TwoRuns | None:
    """The pair of a key; None where the key is not one of a pair of stores that can be shown.

    Raises
    ------
    GradscopeError
        The second store cannot be read.
    """
    first, between, second = key.partition(_BETWEEN)
    run, other = library.runs.get(first), library.runs.get(second)
    return TwoRuns(run, other) if between and isinstance(run, OpenRun) and isinstance(other, OpenRun) else None


def other_run(library: Library, run: OpenRun, key: str) -> OpenRun:
    """The store of cell b: that of the key, or the store itself where the key is empty.

    Raises
    ------
    GradscopeError
        No store that can be compared has the key.
    """
    found = library.runs.get(key, run) if key else run
    if not isinstance(found, OpenRun):
        raise GradscopeError(f"{found.path.name} has no cells to compare")
    return found
