"""Check what callbacks receive: bounded JSON that fits their declaration, values that fit their annotations.

A malformed body is answered with 400 and one line. A new callback needs no entry here: Dash knows its inputs and
states, and the annotations of its function are the types of their values.
"""

import json
from collections.abc import Callable
from functools import wraps
from inspect import signature
from math import isfinite
from typing import Any

from dash import Dash
from flask import abort, request
from pydantic import TypeAdapter, ValidationError

from dashboards.data.limits import CELLS, LONGEST

DEPTH = 10
"""Levels of nesting; the columns of a table need 7."""
ITEMS = LONGEST["sample"][1]
"""Items of a list; every sample can be selected."""
KEYS = CELLS
"""Keys of an object; the findings of the overview have one for each cell."""
VALUES = 2 * ITEMS
"""Values of a body, keys included."""
CHARACTERS = 8192
"""Of a text; a page's URL is the longest."""
INTEGER = 2**53
"""Largest magnitude of an integer that JavaScript holds exactly."""


class CheckedDash(Dash):
    """A Dash app whose callbacks are called only with values that fit the annotations of their functions."""

    def callback(self, *args: Any, **options: Any) -> Callable[..., Any]:
        register = super().callback(*args, **options)
        return lambda function: register(_checked(function))


def register(app: Dash, prefix: str) -> None:
    """Check the bodies of callbacks before Dash reads them.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """
    path = f"{prefix.rstrip('/')}/_dash-update-component"

    @app.server.before_request
    def check() -> None:
        if request.path == path and request.method == "POST":
            try:
                _check_declared(app, _body())
            except ValueError as error:  # json's and decoding errors are ValueErrors, too
                _refuse(str(error))


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, which gets its arguments converted to their annotations; 400 where one does not fit."""
    types = {name: TypeAdapter(each.annotation) for name, each in signature(function).parameters.items()}

    @wraps(function)
    def call(*values: Any) -> Any:
        arguments = []
        for (name, kind), value in zip(types.items(), values, strict=True):
            try:
                arguments.append(kind.validate_python(value, strict=True))
            except ValidationError as error:
                first = error.errors()[0]
                _refuse(": ".join([name, *map(str, first["loc"]), first["msg"]]))
        return function(*arguments)

    return call


def _refuse(reason: str) -> None:
    abort(400, f"callback: {reason[:300]}")


def _body() -> Any:
    if not request.is_json:
        raise ValueError(f"content type {request.mimetype[:60]!r}; application/json is needed")
    try:
        body = json.loads(request.get_data().decode())
    except RecursionError:
        raise ValueError("the body is nested too deep") from None
    _check_size(body)
    return body


def _check_size(body: Any) -> None:
    """Raise ValueError where JSON is larger than any page sends, or holds what is no JSON."""
    count, waiting = 0, [(body, 1)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEPTH or count > VALUES:
            raise ValueError(f"at most {VALUES} values, nested {DEPTH} deep, are possible")
        if isinstance(value, str):
            value.encode()  # fails for one half of a surrogate pair
            _check_length("a text", "characters", len(value), CHARACTERS)
        elif isinstance(value, list):
            _check_length("a list", "items", len(value), ITEMS)
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            _check_length("an object", "keys", len(value), KEYS)
            waiting += [(part, depth + 1) for item in value.items() for part in item]
        elif isinstance(value, float) and not isfinite(value) or isinstance(value, int) and abs(value) > INTEGER:
            raise ValueError("numbers have to be finite, integers at most 2**53")


def _check_length(what: str, unit: str, length: int, most: int) -> None:
    if length > most:
        raise ValueError(f"{what} has {length} {unit}; at most {most} are possible")


def _check_declared(app: Dash, body: Any) -> None:
    """Raise ValueError where no callback has this output, these inputs and these states."""
    if not isinstance(body, dict) or not isinstance(output := body.get("output"), str):
        raise ValueError("the body has to be an object with a text as `output`")
    known = app.callback_map.get(output)
    if known is None or "callback" not in known:  # the browser runs the others
        raise ValueError(f"there is none for the output {output[:60]!r}")
    declared = known["output"] if isinstance(known["output"], list) else [known["output"]]
    sent = body.get("outputs")
    outputs = [name.partition("@")[0] for name in _names("outputs", sent if isinstance(sent, list) else [sent])]
    _check_same("outputs", outputs, [f"{each.component_id_str()}.{each.component_property}" for each in declared])
    inputs = [f"{each['id']}.{each['property']}" for each in known["inputs"]]
    _check_same("inputs", _names("inputs", body.get("inputs")), inputs)
    states = [f"{each['id']}.{each['property']}" for each in known["state"]]
    _check_same("state", _names("state", body.get("state", [])), states)
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not set(map(str, changed)) <= set(inputs):
        raise ValueError(f"changedPropIds has to be a list of inputs; got {str(changed)[:60]}")


def _names(part: str, properties: Any) -> list[str]:
    """``id.property`` of each, as Dash writes it."""
    keys = {"id", "property"}
    if not isinstance(properties, list) or not all(isinstance(each, dict) and keys <= set(each) for each in properties):
        raise ValueError(f"{part}: a list of objects with `id` and `property` is needed")
    return [f"{_id_text(each['id'])}.{each['property']}" for each in properties]


def _id_text(id: Any) -> str:
    return id if isinstance(id, str) else json.dumps(id, sort_keys=True, separators=(",", ":"))


def _check_same(part: str, got: list[str], declared: list[str]) -> None:
    if got != declared:
        raise ValueError(f"{part} should be {', '.join(declared)}; got {', '.join(got)[:100]}")
