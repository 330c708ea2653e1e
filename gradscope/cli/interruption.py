"""Ctrl-C and SIGTERM: the command says how far it came and how to continue, and exits with 130 or 143."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer

from gradscope.errors import notes


class Terminated(KeyboardInterrupt):
    """The process received SIGTERM."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn SIGTERM into an exception, as Ctrl-C is one; either ends the command and prints the exception's notes.

    Raises
    ------
    typer.Exit
        With status 130 (Ctrl-C) or 143 (SIGTERM).
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    except KeyboardInterrupt as error:
        word, status = ("terminated", 143) if isinstance(error, Terminated) else ("interrupted", 130)
        typer.echo("; ".join([f"gradscope: {word}", *notes(error)]), err=True)
        raise typer.Exit(status) from None
    finally:
        signal.signal(signal.SIGTERM, before)
