"""Standard output that may fail while a command runs: for example on a full disk behind ``>``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from gradscope.errors import GradscopeError


class Output:
    """Standard output that a command survives: after the first failed write, all text is discarded.

    A closed pipe still raises BrokenPipeError: its reader wants no more.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Error of the first failed write."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def failure(self) -> str:
        """The error in words; empty where all was written."""
        return f"standard output could not be written: {self.error.strerror}" if self.error else ""

    def write(self, text: str) -> int:
        with self._kept():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._kept():
            self._stream.flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            if self.error is not None:
                raise
            self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)  # takes the rest of the buffer, too
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def refuse_lost() -> None:
    """Raise GradscopeError if standard output failed: for commands that are of no use without it."""
    if isinstance(sys.stdout, Output) and sys.stdout.error is not None:
        raise GradscopeError(sys.stdout.failure)


@contextmanager
def lasting() -> Iterator[Output | None]:
    """Replace standard output by an `Output`, and yield it; yield None if standard output was closed from the start."""
    before = sys.stdout
    if before is None:
        yield None
        return
    output = sys.stdout = Output(before)
    try:
        yield output
        with suppress(BrokenPipeError):
            output.flush()
    finally:
        sys.stdout = before
