"""Make a frozen dataclass of settings from a mapping, with an error that names the key."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from gradscope.errors import GradscopeError, one_of

Made = TypeVar("Made")


def make(kind: type[Made], options: Mapping[str, Any], where: str, name: str) -> Made:
    """An instance of a dataclass, with its settings checked.

    Parameters
    ----------
    kind
        The dataclass.
    options
        Its settings; lists become tuples.
    where
        The key of the options, for errors.
    name
        Name of the dataclass in a configuration.

    Raises
    ------
    GradscopeError
        A setting is unknown, of another type, or out of range.
    """
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    for key in options:
        if key not in fields:
            possible = one_of(key, fields) if fields else "it has none"
            raise GradscopeError(f"{where}.{key}: {name} has no such setting; {possible}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return TypeAdapter(kind).validate_python(given)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([where, *map(str, first["loc"])])
        message = first["msg"].removeprefix("Value error, ").replace("Input should", "must")
        got = "" if first["type"] == "value_error" else f", got {first['input']!r}"
        raise GradscopeError(f"{key}: {message}{got}") from None
