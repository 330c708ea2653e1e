"""What may be asked of callbacks: bodies are checked before Dash looks at them, and refused with 400 and a reason."""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from dash import Dash
from flask import abort, request
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    with_config,
)
from typing_extensions import TypedDict

from dashboards.data.limits import CELLS, LONGEST
from dashboards.state import ONLY, SHOWN_MOST, VARIABLES_MOST
from dashboards.widgets.controls import control

Count = Annotated[int, Field(ge=0, lt=2**31)]
Number = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,9}\z")]
Word = Annotated[str, StringConstraints(max_length=1024)]
_MOST = 64
"""Places of a callback, keys of a mapping."""


def _many(most: int) -> Any:
    """Of a list: that its length is bounded, and that its first wrong item ends the search."""
    return Field(max_length=most, fail_fast=True)


def _keys(most: int) -> Any:
    """Of a mapping: that it is looked into only with so few keys."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > most:
            raise ValueError(f"it has {len(value)} keys, at most {most} are possible")
        return value

    return BeforeValidator(check)


_Few = _keys(_MOST)
_Texts = Annotated[dict[str, str], _Few]


@with_config(ConfigDict(extra="forbid"))
class _View(TypedDict):
    store: Word
    page: Word
    url: Annotated[str, StringConstraints(max_length=8192)]


@with_config(ConfigDict(extra="forbid"))
class _At(TypedDict):
    cell: Count
    sample: Count
    cells: Annotated[list[Count], _many(SHOWN_MOST)]
    variables: Annotated[list[Word], _many(VARIABLES_MOST)]


class _Address(TypedDict):
    path: str
    query: _Texts


_Found = TypedDict("_Found", {"of": str, "in": Annotated[dict[str, str], _keys(CELLS)]})
_Columns = Annotated[list[Annotated[dict[str, str | int | float | bool | None | _Texts], _Few]], _many(1024)]


def _key(id: str | Mapping[str, str], property: str) -> str:
    """``id.property``, as Dash writes it."""
    text = id if isinstance(id, str) else json.dumps(id, sort_keys=True, separators=(",", ":"))
    return f"{text}.{property}"


_KINDS: Mapping[str, Any] = {
    "page.id": Word,
    "address.data": _Address | None,
    "view.data": Annotated[_View, _Few] | None,
    "version.data": Word | None,
    "poll.n_intervals": Count | None,
    "overview-found.data": _Found | None,
    "cells-table.columnDefs": _Columns | None,
    "samples-table.columnDefs": _Columns | None,
    "samples-page.value": Annotated[Count, Field(ge=1)],
    "trajectory-at.data": Annotated[_At, _Few],
    "compare-samples.value": Annotated[list[Number], _many(LONGEST["sample"][1])],
    _key(control("cell"), "value"): Number,
    _key(control("other"), "value"): Number,
    _key(control("cells"), "value"): Annotated[list[Number], _many(SHOWN_MOST)],
    _key(control("variables"), "value"): Word,
    _key(control("only"), "value"): Literal[ONLY],
}
"""What the inputs and states of callbacks may be."""
_VALUES = {name: TypeAdapter(kind) for name, kind in _KINDS.items()}


class _Place(BaseModel):
    id: str | _Texts
    property: str
    value: Any = None

    def key(self) -> str:
        return _key(self.id, self.property)


_Places = Annotated[list[_Place], _many(_MOST)]


class _Body(BaseModel):
    """What the browser sends to have a callback run."""

    output: str
    outputs: _Places | _Place
    inputs: _Places
    state: _Places = []
    changedPropIds: Annotated[list[str], _many(_MOST)] = []  # noqa: N815


def register(app: Dash, prefix: str) -> None:
    """Check what callbacks are asked.

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
                _check(app, _parsed())
            except ValueError as error:  # which json's and pydantic's errors are
                reason = _told(error) if isinstance(error, ValidationError) else str(error)
                abort(400, f"callback: {reason[:300]}")


def _parsed() -> _Body:
    if not request.is_json:
        raise ValueError(f"content type {request.mimetype[:60]!r}; application/json is needed")
    try:
        text = request.get_data().decode()
        if "\\u" in text:  # halves of surrogate pairs, which no text may have
            json.dumps(json.loads(text), ensure_ascii=False).encode()
        return _Body.model_validate(json.loads(text, parse_constant=_refuse), strict=True)
    except RecursionError:
        raise ValueError("the body is nested too deep") from None


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _check(app: Dash, body: _Body) -> None:
    """Raise ValueError where no callback is asked like this."""
    known = app.callback_map.get(body.output)
    if known is None or "callback" not in known:  # others run in the browser
        raise ValueError(f"there is none for the output {body.output[:60]!r}")
    outputs = known["output"] if isinstance(known["output"], list) else [known["output"]]
    sent = body.outputs if isinstance(body.outputs, list) else [body.outputs]
    wanted = [f"{output.component_id_str()}.{output.component_property}" for output in outputs]
    _same("outputs", [place.key().partition("@")[0] for place in sent], wanted)
    for kind, places in (("inputs", body.inputs), ("state", body.state)):
        _same(kind, [place.key() for place in places], [f"{each['id']}.{each['property']}" for each in known[kind]])
        for place in places:
            try:
                _VALUES[place.key()].validate_python(place.value, strict=True)
            except ValidationError as error:
                raise ValueError(f"{place.key()}: {_told(error)}") from None
    if unknown := set(body.changedPropIds) - {place.key() for place in body.inputs}:
        raise ValueError(f"changedPropIds: {min(unknown)[:60]!r} is no input")


def _same(kind: str, got: list[str], wanted: list[str]) -> None:
    if got != wanted:
        raise ValueError(f"{kind} should be {', '.join(wanted)}; got {', '.join(got)[:100]}")


def _told(error: ValidationError) -> str:
    first = error.errors()[0]
    return ": ".join([*(str(part) for part in first["loc"]), first["msg"]])
