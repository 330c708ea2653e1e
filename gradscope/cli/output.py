"""Standard output that may end before the command does: a full disk behind ``>``."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from gradscope.errors import GradscopeError


class Output:
    """Standard output; where nothing can be written to it any more, the command goes on without it.

    What is written later goes nowhere. A closed pipe is not of this kind: who reads it wants no more.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.error: OSError | None = None
        """Why something could not be written."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def told(self) -> str:
        """What could not be done, in words; empty where all was written."""
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
            nowhere = os.open(os.devnull, os.O_WRONLY)  # takes what is still in the buffer, too
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def refuse_lost() -> None:
    """Raise GradscopeError where standard output cannot be written, for what is of no use without it."""
    if isinstance(sys.stdout, Output) and sys.stdout.error is not None:
        raise GradscopeError(sys.stdout.told)


@contextmanager
def lasting() -> Iterator[Output | None]:
    """In it, standard output is an `Output`; None where it was closed by whoever started the command."""
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
