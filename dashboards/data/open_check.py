"""One open file of `gradscope check --out`: its answers in memory."""

from pathlib import Path
from threading import Lock

from gradscope.errors import GradscopeError
from gradscope.reporting.check_file import CheckFile, read


class OpenCheck:
    """The answers of a check, read into memory. Several threads may use it.

    Raises
    ------
    GradscopeError
        The file does not have the form, or is too large.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key
        self._lock = Lock()
        self._stamp = _stamp(path)
        self.found: CheckFile = read(path)

    def refresh(self) -> bool:
        """Read the file again if it was replaced; True if it was. If it cannot be read, all stays as it was."""
        with self._lock:
            if (now := _stamp(self.path)) == self._stamp:
                return False
            try:
                self.found = read(self.path)
            except GradscopeError:
                return False
            self._stamp = now
            return True


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_mtime_ns, about.st_size
