"""Make a frozen dataclass of settings from a mapping, with an error that names the key."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, TypeVar, get_type_hints

from pydantic import PydanticSchemaGenerationError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from gradscope.errors import GradscopeError, one_of

Made = TypeVar("Made")
_NUMBER = {"missing": "must have more values", "too_long": "must have fewer values"}
"""What is wrong with the number of a tuple's values, by pydantic's name of the error."""


def make(kind: type[Made], options: Mapping[str, Any], where: str, name: str) -> Made:
    """An instance of a dataclass, with its settings checked.

    Parameters
    ----------
    kind
        The dataclass.
    options
        Its settings; lists become tuples, and nothing else is converted.
    where
        The key of the options, for errors.
    name
        Name of the dataclass in a configuration.

    Raises
    ------
    GradscopeError
        A setting is unknown, of another type, or out of range.
    """
    known = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    for key in options:
        if key not in known:
            possible = one_of(key, known) if known else "it has none"
            raise GradscopeError(f"{where}.{key}: {name} has no such setting; {possible}")
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        return kind(**typed(kind, given))
    except ValueError as error:
        # An error begins with the setting's name, which becomes a part of the key.
        about = re.match(r"([\w.]+) (must .*)", str(error), re.S)
        is_named = about is not None and about[1].split(".")[0] in known
        raise GradscopeError(f"{where}.{about[1]}: {about[2]}" if about and is_named else f"{where}: {error}") from None


def typed(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a dataclass in the types of its fields: a whole number may stand for a float, nothing else.

    A value whose type is not known here is taken as it is.

    Raises
    ------
    ValueError
        A value has another type. The message begins with the setting's name.

    Examples
    --------
    >>> from dataclasses import make_dataclass
    >>> typed(make_dataclass("Slow", [("rate", float)]), {"rate": 2})
    {'rate': 2.0}
    """
    try:
        hints = get_type_hints(kind)
    except NameError:  # types that are imported for a type checker alone
        return dict(settings)
    found = {}
    for key, value in settings.items():
        try:
            found[key] = TypeAdapter(hints[key]).validate_python(value, strict=True)
        except PydanticSchemaGenerationError:  # a type that pydantic does not know, for example Tensor
            found[key] = value
        except ValidationError as error:
            errors = error.errors()
            first = errors[0]
            if first["type"] in _NUMBER:
                raise ValueError(f"{key} {_NUMBER[first['type']]}, got {value!r:.80}") from None
            where, must = _what_is_wrong(errors)
            at = ".".join([key, *map(str, where)])
            raise ValueError(f"{at} {must}, got {first['input']!r:.80}") from None
    return found


def _what_is_wrong(errors: Sequence[ErrorDetails]) -> tuple[tuple[int | str, ...], str]:
    """Where the first value of another type is, and what it must be; one error for each type of a union."""
    where = errors[0]["loc"]
    union = [e["msg"] for e in errors if where and isinstance(where[-1], str) and e["loc"][:-1] == where[:-1]]
    if len(union) < 2:
        return where, errors[0]["msg"].replace("Input should", "must")
    return where[:-1], "must be " + " or ".join(text.removeprefix("Input should be ") for text in union)
