"""Check what callbacks receive: bounded JSON that fits their declaration, values that fit their annotations.

A malformed body is answered with 400 and one line. A new callback needs no entry here: Dash knows its inputs and
states, and the annotations of its function are the types of their values.
"""

import json
from collections.abc import Callable, Mapping
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
LARGEST: Mapping[type, tuple[str, int]] = {
    str: ("characters", 8192),
    list: ("items", LONGEST["sample"][1]),
    dict: ("keys", CELLS),
}
"""Largest texts, lists and objects: the URL of a page, all samples, the findings of each cell."""
VALUES = 2 * LONGEST["sample"][1]
"""Values of a body, keys included."""
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
    """Raise ValueError where JSON is larger than any page sends, or holds a value that JSON does not have."""
    count, waiting = 0, [(body, 1)]
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > DEPTH or count > VALUES:
            raise ValueError(f"at most {VALUES} values, nested {DEPTH} deep, are possible")
        unit, most = LARGEST.get(type(value), ("", 0))
        if unit and len(value) > most:
            raise ValueError(f"{len(value)} {unit}; at most {most} are possible")
        if isinstance(value, str):
            value.encode()  # fails for one half of a surrogate pair
        elif isinstance(value, list):
            waiting += [(item, depth + 1) for item in value]
        elif isinstance(value, dict):
            waiting += [(part, depth + 1) for item in value.items() for part in item]
        elif isinstance(value, float) and not isfinite(value) or isinstance(value, int) and abs(value) > INTEGER:
            raise ValueError("numbers have to be finite, integers at most 2**53")


def _check_declared(app: Dash, body: Any) -> None:
    """Raise ValueError where no callback has this output, these inputs and these states."""
    if not isinstance(body, dict) or not isinstance(output := body.get("output"), str):
        raise ValueError("the body has to be an object with a text as `output`")
    known = app.callback_map.get(output)
    if known is None or "callback" not in known:  # the browser runs the others
        raise ValueError(f"there is none for the output {output[:60]!r}")
    outputs = output[2:-2].split("...") if output[:2] == ".." else [output]
    declared = {"outputs": [name.replace("\\.", ".") for name in outputs]}
    declared |= {part: [f"{each['id']}.{each['property']}" for each in known[part]] for part in ("inputs", "state")}
    for part, names in declared.items():
        sent = body.get(part, [])
        if part == "outputs" and isinstance(sent, dict):  # of a callback with one output
            sent = [sent]
        if not isinstance(sent, list) or [_name(each) for each in sent] != names:
            raise ValueError(f"{part} should be {', '.join(names)}; got {str(sent)[:100]}")
    changed = body.get("changedPropIds", [])
    if not isinstance(changed, list) or not set(map(str, changed)) <= set(declared["inputs"]):
        raise ValueError(f"changedPropIds should be some of the inputs; got {str(changed)[:60]}")


def _name(each: Any) -> str:
    """``id.property`` as Dash writes it; empty where one of them is missing."""
    if not isinstance(each, dict) or not {"id", "property"} <= set(each):
        return ""
    id = each["id"] if isinstance(each["id"], str) else json.dumps(each["id"], sort_keys=True, separators=(",", ":"))
    return f"{id}.{each['property']}"
