"""Errors that are messages to the user: what was got, what is possible, and where."""

from collections.abc import Iterable
from difflib import get_close_matches


class GradscopeError(Exception):
    """Something the user can mend. The command line prints it as one paragraph and exits with `exit_status`."""

    exit_status = 2


class GradscopeWarning(UserWarning):
    """Something that a reader of the numbers must know. The command line prints it as one paragraph."""


class NonFiniteGradient(GradscopeError):
    """A gradient was not finite in a run that was told to stop there."""

    exit_status = 3


def notes(error: BaseException) -> list[str]:
    """What was added to an error on its way."""
    return getattr(error, "__notes__", [])


def one_of(got: object, possible: Iterable[str]) -> str:
    """The end of a message about an unknown name: "did you mean 'adam'? one of: ema, adam, none"."""
    names = [str(name) for name in possible]
    close = get_close_matches(str(got), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}one of: {', '.join(names)}"
