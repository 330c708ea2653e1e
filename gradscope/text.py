"""Text for users: names of cells, values in errors, and sizes in bytes."""

from collections.abc import Sequence

from gradscope.errors import GradscopeError

LONGEST = 200
"""Largest number of characters in a name."""


def check_name(name: str, where: str) -> str:
    """Return the name if it can be shown on one line as it is.

    Raises
    ------
    GradscopeError
        The name is not text, is empty, has over 200 characters, or has invisible ones: newlines, control characters, or
        marks that change the direction of writing (U+202E). The message begins with `where`.

    Examples
    --------
    >>> check_name("robust", "classifiers")
    'robust'
    """
    if not isinstance(name, str):
        raise GradscopeError(f"{where}: a name must be text, got {name!r:.80}")
    if not name.strip():
        raise GradscopeError(f"{where}: a name must not be empty, got {name!r}")
    if len(name) > LONGEST:
        raise GradscopeError(f"{where}: a name has at most {LONGEST} characters, got {len(name)}: {name[:40]!r}...")
    if hidden := [letter for letter in name if not letter.isprintable()]:
        codes = ", ".join(f"U+{ord(letter):04X}" for letter in dict.fromkeys(hidden))
        raise GradscopeError(f"{where}: a name must have no invisible characters, got {name!r} with {codes}")
    return name


def samples_of(shape: Sequence[int]) -> str:
    """Samples of a shape in words; those of three dimensions are called images.

    Examples
    --------
    >>> samples_of((3, 32, 32)), samples_of((16, 2))
    ('images of 3 x 32 x 32 (channel, height, width)', 'samples of shape (16, 2)')
    """
    if len(shape) == 3:
        return f"images of {' x '.join(map(str, shape))} (channel, height, width)"
    return f"samples of shape {tuple(shape)}"


def short(value: object) -> str:
    """The value as Python writes it, in at most 80 characters.

    Examples
    --------
    >>> short("robust")
    "'robust'"
    """
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def size(count: float) -> str:
    """Bytes in the unit that suits them, with three digits.

    Examples
    --------
    >>> size(1536)
    '1.54 kB'
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
