"""The stores that a dashboard shows."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from dashboards.data.recorded import Recorded, short_key
from gradscope.errors import GradscopeError

__all__ = ["Broken", "Library", "Recorded"]


@dataclass(frozen=True)
class Broken:
    """A store that cannot be opened."""

    key: str
    path: Path
    reason: str


class Library:
    """The stores named on the command line, and no others. They are opened when one is first asked for.

    Raises
    ------
    GradscopeError
        No store is named.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise GradscopeError("dashboard: which store? name at least one")
        self._waiting = list({path.absolute(): path for path in paths}.values())
        self._runs: dict[str, Recorded | Broken] = {}
        self._lock = Lock()

    @property
    def runs(self) -> dict[str, Recorded | Broken]:
        """By key, in the order given."""
        with self._lock:
            while self._waiting:
                path = self._waiting.pop(0)
                run = _opened(path)
                if run.key in self._runs:  # a copy of a store has its run_id
                    run = _opened(path, short_key(None, path))
                self._runs[run.key] = run
        return self._runs

    def run(self, key: str | None) -> Recorded | Broken:
        """The run of that key, the first where there is none; one that could not be opened is tried again."""
        run = self.runs.get(key or "") or next(iter(self.runs.values()))
        if isinstance(run, Broken):
            run = self.runs[run.key] = _opened(run.path, run.key)
        return run


def _opened(path: Path, key: str | None = None) -> Recorded | Broken:
    try:
        return Recorded(path, key)
    except Exception as error:  # whatever is wrong with a store, the others can be looked at
        known = isinstance(error, GradscopeError)
        reason = str(error) if known else f"{path} cannot be read: {type(error).__name__}: {error}"
        return Broken(key or short_key(None, path), path, reason)
