"""Errors for the user. Their messages say what was got, what is possible, and where."""

import operator
import sys
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path


class GradscopeError(Exception):
    """An error that the user can fix. The command line prints it as one paragraph and exits with `exit_status`.

    Parameters
    ----------
    text
        What is wrong, in words that suit Python and the command line.
    key
        The key of the configuration, or the option, at fault. The command line prints it before the text.
    python, command
        What to do about it in Python (``overwrite=True``) and on the command line (``--overwrite``). ``str(error)``
        ends with the former, `for_command` with the latter.

    Examples
    --------
    >>> error = GradscopeError("a.zarr exists", key="path", python="pass overwrite=True", command="or --overwrite")
    >>> str(error)
    'a.zarr exists; pass overwrite=True'
    >>> error.for_command()
    'path: a.zarr exists; or --overwrite'
    """

    exit_status = 2

    def __init__(self, text: str = "", *, key: str = "", python: str = "", command: str = "") -> None:
        super().__init__(text)
        self._key, self._python, self._command = key, python, command

    def __str__(self) -> str:
        return "; ".join(filter(None, (super().__str__(), self._python)))

    def for_command(self) -> str:
        """The message as the command line prints it."""
        message = "; ".join(filter(None, (super().__str__(), self._command)))
        return f"{self._key}: {message}" if self._key else message


class HiddenPackage(GradscopeError, ImportError):
    """A package of gradscope is hidden by another one of the same name."""


class GradscopeWarning(UserWarning):
    """A warning about how to read the numbers. The command line prints it as one paragraph."""


class NonFiniteGradient(GradscopeError):
    """A gradient was not finite, in a run with ``stop_on_nonfinite``."""

    exit_status = 3


def hidden_package(error: ImportError) -> HiddenPackage | None:
    """The error to raise if an import failed because another ``probes`` or ``dashboards`` was found instead of ours.

    In notebooks and with ``python -m`` the current folder is searched first.
    """
    from importlib.util import find_spec  # only here: `gradscope --help` loads this module
    from traceback import extract_tb

    root = Path(__file__).parents[1]
    files = {frame.filename for frame in extract_tb(error.__traceback__)}
    for name in ("probes", "dashboards"):
        spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
        found = None if spec is None else spec.origin
        if found is None or Path(found).is_relative_to(root / name):
            continue
        if found in files or (error.name or "").partition(".")[0] == name:
            return HiddenPackage(
                f"{found} hides gradscope's own package {name}, {root / name}",
                python="rename it, or start Python in another folder",
                command="rename it, start in another folder, or type gradscope in place of python -m gradscope",
            )
    return None


def notes(error: BaseException) -> list[str]:
    """Notes that were added to an error by ``add_note``."""
    return getattr(error, "__notes__", [])


def whole_number(value: object, where: str, least: int = 0) -> int:
    """The value as an int; NumPy's integers are taken, too.

    Raises
    ------
    GradscopeError
        The value is not a whole number, or is below `least`. The message begins with `where`.

    Examples
    --------
    >>> whole_number(4, "batch_size", least=1)
    4
    """
    if hasattr(value, "__index__") and not isinstance(value, bool):
        with suppress(TypeError):  # arrays have __index__, but raise TypeError
            if (number := operator.index(value)) >= least:
                return number
    raise GradscopeError(f"{where}: must be a whole number of at least {least}, got {value!r:.80}")


def one_of(got: object, possible: Iterable[str]) -> str:
    """The end of a message about an unknown name.

    Examples
    --------
    >>> one_of("adm", ["ema", "adam", "none"])
    "did you mean 'adam'? one of: ema, adam, none"
    """
    names = [str(name) for name in possible]
    close = get_close_matches(str(got), names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}one of: {', '.join(names)}"
