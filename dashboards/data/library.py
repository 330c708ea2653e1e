"""The library: the stores that a dashboard shows, and files of `gradscope check --out`, by key."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from dashboards.data.open_check import OpenCheck
from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.data.open_run import OpenRun, short_key
from gradscope.errors import GradscopeError
from gradscope.store.derived import ORACLE, kind_of


@dataclass(frozen=True)
class BrokenRun:
    """A store that cannot be opened."""

    key: str
    path: Path
    reason: str


Opened = OpenRun | OpenLeaderboard
"""A store with figures."""
Shown = Opened | OpenCheck
"""What has pages: a store, or a file of answers."""


class Library:
    """The stores named on the command line, and no others. The first use opens them.

    Raises
    ------
    GradscopeError
        No store is named.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        if not paths:
            raise GradscopeError("dashboard: which store? name at least one")
        self._unopened = list({path.absolute(): path for path in paths}.values())
        self._runs: dict[str, Shown | BrokenRun] = {}
        self._lock = Lock()

    @property
    def runs(self) -> dict[str, Shown | BrokenRun]:
        """All runs by key, in the order of the paths."""
        with self._lock:
            while self._unopened:
                path = self._unopened.pop(0)
                run = _open(path)
                if run.key in self._runs:  # a copy of a store has the same run_id
                    run = _open(path, short_key(None, path))
                self._runs[run.key] = run
        return self._runs

    def run(self, key: str | None) -> Shown | BrokenRun:
        """Return the run of a key, or the first one where the key is unknown. A broken one is opened again."""
        run = self.runs.get(key or "") or next(iter(self.runs.values()))
        if isinstance(run, BrokenRun):
            run = self.runs[run.key] = _open(run.path, run.key)
        return run


def _open(path: Path, key: str | None = None) -> Shown | BrokenRun:
    try:
        if path.is_file():
            return OpenCheck(path, key or short_key(None, path))
        if kind_of(path) == ORACLE:
            return OpenLeaderboard(path, key or short_key(None, path))
        return OpenRun(path, key)
    except Exception as error:  # one broken store must not hide the others
        expected = isinstance(error, GradscopeError)
        reason = str(error) if expected else f"{path} cannot be read: {type(error).__name__}: {error}"
        return BrokenRun(key or short_key(None, path), path, reason)
