"""Looking at what a store's metadata say: refusals name the place and what was got."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from gradscope.errors import GradscopeError

NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""What an array of a store can be named."""
_DEPTH = 20


def check_key(values: Mapping[str, Any], key: str, wanted: str, holds: Callable[[Any], bool], where: str) -> None:
    """Refuse the value of a key that is there."""
    if key in values and not holds(values[key]):
        refuse(where, f"{key} is {wanted}, got {short(values[key])}")


def check_depth(value: Any, where: str) -> None:
    """Refuse what is nested so deep that whoever walks it would fail."""
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
    """What is written there as JSON."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is one, as is a number of too many digits
        raise GradscopeError(f"{where}: {what} cannot be read as JSON: {error}") from None


def mapping(value: Any, where: str, what: str) -> dict[str, Any]:
    """The value, a mapping."""
    if not isinstance(value, dict):
        refuse(where, f"{what} must be a mapping, got {short(value)}")
    return value


def whole_numbers(value: Any, where: str, what: str, least: int) -> list[int]:
    """The value, a list of numbers of at least `least`."""
    if not isinstance(value, list) or not all(is_number(n, int) and n >= least for n in value):
        refuse(where, f"{what} must be a list of whole numbers from {least}, got {short(value)}")
    return value


def is_number(value: Any, kind: Any = int | float) -> bool:
    """Whether it is one that fits into 64 bits; truth values and NaN are none."""
    return isinstance(value, kind) and not isinstance(value, bool) and abs(value) < 2**63


def short(value: Any) -> str:
    """As it is shown in a line."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def refuse(where: str, why: str) -> NoReturn:
    """Raise GradscopeError."""
    raise GradscopeError(f"{where}: {why}")
