"""Errors of a configuration as lines that begin with the key."""

from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import Tag, ValidationError

from gradscope.config.fields import TAGS, Strict
from gradscope.errors import one_of
from gradscope.text import short

_WANTED = {
    "string_type": "text",
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping of keys",
    "string_unicode": "text",
}


def error_lines(model: type[Strict], error: ValidationError) -> list[str]:
    """One line for each error, beginning with its key, without repetitions."""
    return list(dict.fromkeys(_line(model, e) for e in error.errors()))


def _line(model: type[Strict], error: Any) -> str:
    path = [str(part) for part in error["loc"] if part not in TAGS] or [*map(str, error["loc"][-1:])]
    kind, got = error["type"], short(error["input"])
    if kind == "invalid_key" or path[-1:] == ["[key]"]:
        return f"{_name(path).removesuffix('.[key]')}: a key must be text, got {got}"
    key = f"{_name(path)}: " if path else ""
    if kind == "extra_forbidden":
        return f"{key}unknown key; {one_of(path[-1], _keys(model, error['loc'][:-1]))}"
    if kind == "missing":
        return f"{key}this key is missing"
    if kind == "literal_error":
        possible = [text.strip("'") for text in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"{key}got {got}; {one_of(error['input'], possible)}"
    if kind == "value_error":
        return key + error["msg"].removeprefix("Value error, ")
    if kind.startswith("recursion_"):
        return f"{key}nested too deeply"
    if kind in _WANTED:
        return f"{key}must be {_WANTED[kind]}, got {got}"
    message = error["msg"].replace("Input should", "must").replace(" should", " must").split(" after validation")[0]
    return f"{key}{message[0].lower()}{message[1:]}, got {got}"


def _name(path: Sequence[str]) -> str:
    """The path with dots, each key and the whole in bounds and printable: it may come from another user's store."""
    keys = [part if part.isprintable() else repr(part) for part in path]
    return ".".join(f"{key:.80}" for key in keys[:20]) + (" ..." if len(keys) > 20 else "")


def _keys(model: type[Strict], path: Sequence[str | int]) -> list[str]:
    """The possible keys at `path` below `model`; the tags in it choose among the models of a union."""
    annotation: Any = None
    for part in path:
        if part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            model = next(models_in(annotation), model)
        elif part in TAGS:
            model = next(models_in(annotation, str(part)), model)
    return list(model.model_fields)


def models_in(annotation: Any, tag: str | None = None) -> Iterator[type[Strict]]:
    """The models of an annotation: itself, or those inside a union, a mapping or a list.

    With a tag, only those that carry it; see `gradscope.config.fields.form_of`.
    """
    parts = get_args(annotation)
    if tag is not None and any(isinstance(part, Tag) and part.tag == tag for part in parts):
        tag = None
    if tag is None and isinstance(annotation, type) and issubclass(annotation, Strict):
        yield annotation
    for part in parts:
        yield from models_in(part, tag)
