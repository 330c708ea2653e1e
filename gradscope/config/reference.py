"""Every key of a configuration: what it does, which values it takes, and its default."""

from collections.abc import Container, Iterable, Iterator, Mapping
from io import StringIO
from typing import Any, NamedTuple, get_origin

from ruamel.yaml import YAML

from gradscope.config.fields import Strict
from gradscope.config.messages import models_in

_LIMITS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
_UNBOUNDED = 2**61
"""Limits from here on are those of int64, which no user meets."""


class Key(NamedTuple):
    """One key of a configuration."""

    path: str
    """With dots, for example ``guidance.interval``."""
    description: str
    values: str
    """For example ``whole number >= 1``; empty for a section of further keys."""
    default: str | None
    """As YAML; None where the key is required, or a section."""
    below: tuple[type[Strict], ...]
    """The models of further keys below this one."""

    @property
    def possible(self) -> str:
        """Values and default, for example ``whole number >= 0; default: 0``; empty for a section."""
        default = "required" if self.default is None else f"default: {self.default}"
        return f"{self.values}; {default}" if self.values else ""


def keys(model: type[Strict], path: str = "", apart: Container[type[Strict]] = ()) -> Iterator[Key]:
    """All keys of a configuration model, each before those below it; keys of models in `apart` are left out.

    Examples
    --------
    >>> from gradscope.config import RunConfig
    >>> key = next(key for key in keys(RunConfig) if key.path == "evaluation.replicates")
    >>> key.description, key.possible
    ('Number of bootstrap replicates, for intervals.', 'whole number >= 1; default: 200')
    """
    for name, key in section(model, path).items():
        yield key
        parent = f"{key.path}.NAME" if get_origin(model.model_fields[name].annotation) is dict else key.path
        for below in key.below:
            if below not in apart:
                yield from keys(below, parent, apart)


def section(model: type[Strict], path: str = "") -> dict[str, Key]:
    """The keys of one model by name, without those below them."""
    schema = model.model_json_schema()
    kinds, defined = schema["properties"], schema.get("$defs", {})
    found = {}
    for name, field in model.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Strict)
        found[name] = Key(
            f"{path}.{name}" if path else name,
            " ".join((field.description or "").split()),
            "" if is_section else _of_names(kinds[name], defined),
            None if is_section or field.is_required() else inline(field.default),
            tuple(models_in(field.annotation)),
        )
    return found


def inline(value: Any) -> str:
    """A value as YAML in one line."""
    yaml, text = YAML(typ="safe", pure=True), StringIO()
    yaml.default_flow_style, yaml.width = True, 10_000
    yaml.dump(value, text)
    return text.getvalue().removesuffix("...\n").strip()


def _of_names(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """The values of a key, which may be a mapping of a user's own names."""
    named = schema.get("additionalProperties")
    if isinstance(named, dict) and named and "$ref" not in named:  # options are any values, and recursive
        return f"mapping of NAME to {_values(named, defined)}"
    return _values(schema, defined)


def _values(schema: Mapping[str, Any], defined: Mapping[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "$ref" in schema:
        return _values(defined[schema["$ref"].rpartition("/")[2]], defined)
    if "enum" in schema:
        return _either(map(str, schema["enum"]))
    if "const" in schema:
        return str(schema["const"])
    if members := schema.get("anyOf") or schema.get("oneOf"):
        return _either(_values(member, defined) for member in members)
    match schema.get("type"):
        case "array":
            length = f"{schema['maxItems']}: " if "maxItems" in schema else ""
            items = _values(schema["items"], defined).replace("number", "numbers")
            return f"list of {length}{items}"
        case "integer" | "number" as kind:
            word = "whole number" if kind == "integer" else "number"
            limits = {
                sign: schema[key] for key, sign in _LIMITS.items() if abs(schema.get(key, _UNBOUNDED)) < _UNBOUNDED
            }
            return f"{word} {', '.join(f'{sign} {limit}' for sign, limit in limits.items())}".strip()
        case "object":
            return "mapping"
        case "string":
            return "text"
        case "boolean":
            return "true or false"
        case other:
            return "null" if other == "null" else "any value"


def _either(values: Iterable[str]) -> str:
    *others, last = dict.fromkeys(values)
    return f"{', '.join(others)} or {last}" if others else last
