"""What the models of a store's metadata share: their strict base, their types, and how their errors read."""

import json
import re
from collections.abc import Iterable
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, WrapValidator
from pydantic_core import PydanticCustomError

from gradscope.errors import GradscopeError
from gradscope.text import short

NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f\ud800-\udfff]{1,200}")
"""Possible names of arrays."""
_DEPTH = 25
_WANTED = {
    **{"model_type": "a mapping", "model_attributes_type": "a mapping", "list_type": "a list"},
    **{"too_short": "longer", "too_long": "shorter", "union_tag_not_found": "a codec with a name"},
}
_ARRAYS = ("consolidated_metadata", "metadata")


class Strict(BaseModel):
    """Base of the models: it converts nothing. Keys of which no model knows are left alone."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def wanted(what: str) -> Any:
    """Annotation of a type whose errors say that the value must be `what`."""

    def check(value: Any, handler: Any) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("wanted", what) from None

    return WrapValidator(check)


# Lists stop at their first error, and mappings hold anything: a stranger's store could have millions of errors.
_Text = InstanceOf[str]  # pydantic's own text refuses halves of surrogates, which names of files may have
Text = Annotated[_Text, wanted("a text")]
Texts = Annotated[list[_Text], Field(fail_fast=True), wanted("a list of texts")]
Mapping = Annotated[dict[Any, Any], wanted("a mapping")]
Count = Annotated[int, Field(ge=0, lt=2**63), wanted("a whole number of at least 0")]
Positive = Annotated[int, Field(ge=1, lt=2**63), wanted("a whole number of at least 1")]
Sizes = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**63)]],
    Field(max_length=64, fail_fast=True),
    wanted("a list of whole numbers of at least 0"),
]
PositiveSizes = Annotated[
    list[Annotated[int, Field(ge=1, lt=2**63)]],
    Field(max_length=64, fail_fast=True),
    wanted("a list of whole numbers of at least 1"),
]


def parsed(content: str | bytes, what: str) -> Any:
    """Parse JSON; raise ValueError if it is none, or too deep to walk through by recursion."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:  # ValueError also for bad UTF-8 and too long numbers
        raise ValueError(f"{what} cannot be read as JSON: {error}") from None
    levels = [[value]]  # without keys, which would take gigabytes
    while levels[-1] and len(levels) <= _DEPTH:
        levels.append([part for each in levels[-1] for _, part in _inside(each) if isinstance(part, dict | list)])
    if not levels[-1]:
        return value
    inner, path = levels.pop()[0], list[str]()
    for level in reversed(levels):
        inner, key = next((each, key) for each in level for key, part in _inside(each) if part is inner)
        path.insert(0, str(key))
    raise ValueError(f"{what} is nested more than {_DEPTH} deep at {short('.'.join(path))}")


def _inside(value: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def refusal(error: ValidationError, where: str) -> GradscopeError:
    """The first error of a model of metadata, with the array, the key and the value."""
    first = error.errors(include_url=False)[0]
    kind, path, said = first["type"], first["loc"], first["msg"]
    if path[:2] == _ARRAYS and len(path) > 2:
        where, path = f"{where}, array {path[2]}", path[3:]
    elif path[:1] == ("attributes",) and len(path) > 1:
        path = path[1:]
    key = ".".join(map(str, path)) or "its metadata"
    if kind == "value_error":
        what = said.removeprefix("Value error, ")
    elif kind == "missing":
        what = f"{key} is missing"
    else:
        must = first["ctx"]["expected_tags"] if kind == "union_tag_invalid" else _WANTED.get(kind, said)
        must = must.removeprefix("Input should be ")
        what = f"{key} must be {must}, got {short(first['input'])}"
    return GradscopeError(f"{where}: {what}")
