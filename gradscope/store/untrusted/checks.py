"""Checks of single values in a store's metadata. Errors name the place and the value."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from gradscope.errors import GradscopeError

NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Possible names of arrays."""
_DEPTH = 20


def check_key(values: Mapping[str, Any], key: str, wanted: str, holds: Callable[[Any], bool], where: str) -> None:
    """Raise GradscopeError if a key is present and its value is not as wanted."""
    if key in values and not holds(values[key]):
        refuse(where, f"{key} must be {wanted}, got {short(values[key])}")


def check_depth(value: Any, where: str) -> None:
    """Raise GradscopeError if a value is nested too deep to walk through by recursion."""
    level = [value]
    for _ in range(_DEPTH):
        level = [
            part
            for each in level
            if isinstance(each, dict | list)
            for part in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    refuse(where, f"its attributes are nested more than {_DEPTH} deep")


def parsed(content: str | bytes, where: str, what: str) -> Any:
    """Parse JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError also for bad UTF-8 and too long numbers
        raise GradscopeError(f"{where}: {what} cannot be read as JSON: {error}") from None


def mapping(value: Any, where: str, what: str) -> dict[str, Any]:
    """Return the value; raise GradscopeError unless it is a mapping."""
    if not isinstance(value, dict):
        refuse(where, f"{what} must be a mapping, got {short(value)}")
    return value


def whole_numbers(value: Any, where: str, what: str, least: int) -> list[int]:
    """Return the value; raise GradscopeError unless it is a list of whole numbers of at least `least`."""
    if not isinstance(value, list) or not all(is_number(n, int) and n >= least for n in value):
        refuse(where, f"{what} must be a list of whole numbers of at least {least}, got {short(value)}")
    return value


def is_number(value: Any, kind: Any = int | float) -> bool:
    """Whether the value is a number that fits into 64 bits; booleans and NaN are not."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 2**63


def short(value: Any) -> str:
    """The value as text of at most 80 characters."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse(where: str, why: str) -> NoReturn:
    """Raise GradscopeError with a place and a reason."""
    raise GradscopeError(f"{where}: {why}")
