"""What a configuration may hold: what JSON can, in bounds. YAML knows dates, sets, bytes and aliases beside that."""

import re
from math import isfinite
from typing import Any

from gradscope.errors import GradscopeError

_DEPTH, _VALUES, _TEXT = 20, 100_000, 10_000
_INTEGER = 2**63
_STRANGE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def refuse_strange(content: Any, where: str) -> None:
    """Raise GradscopeError, naming the key, for a value that JSON does not have or that is beyond all bounds."""
    todo: list[tuple[tuple[str, ...], Any]] = [((), content)]
    for _ in range(_VALUES):
        if not todo:
            return
        path, value = todo.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if why := _strange_key(key):
                    raise GradscopeError(f"{where}: {_name(*path, key)}{why}")
                todo.append(((*path, key), inner))
        elif isinstance(value, list):
            todo += (((*path, str(i)), inner) for i, inner in enumerate(value))
        elif why := _strange_value(value):
            raise GradscopeError(f"{where}: {_name(*path)}{why}")
        if len(path) > _DEPTH:
            raise GradscopeError(f"{where}: {_name(path[0])}nested more than {_DEPTH} deep")
    raise GradscopeError(f"{where}: more than {_VALUES} values, what YAML's aliases repeat included")


def _strange_key(key: Any) -> str:
    """What is wrong with a key; empty where nothing is."""
    return _strange_text(key) if isinstance(key, str) else f"a key must be text, got {key!r:.80}"


def _strange_value(value: Any) -> str:
    """What is wrong with a value that is neither list nor mapping; empty where nothing is."""
    match value:
        case None | bool():
            return ""
        case int():
            return "" if -_INTEGER <= value < _INTEGER else "a whole number must be below 2**63 in size"
        case float():
            return "" if isfinite(value) else f"must be a finite number, got {value}"
        case str():
            return _strange_text(value)
        case other:
            return f"must be text, a number, true, false, null, a list or a mapping, got {type(other).__name__}"


def _strange_text(text: str) -> str:
    if len(text) > _TEXT:
        return f"a text has at most {_TEXT} characters, got {len(text)}"
    if _STRANGE.search(text):
        return f"a text has no control characters and no halves of characters, got {text!r:.80}"
    return ""


def _name(*path: object) -> str:
    return ".".join(f"{part!s:.80}" for part in path) + ": " if path else ""
