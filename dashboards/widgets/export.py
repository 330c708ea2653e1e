"""A figure as something that can be named, handed on and reproduced: its numbers as CSV, the Python that draws it."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
from flask import Flask, Response, request
from pydantic import TypeAdapter, ValidationError

from dashboards.data.library import Library, Recorded
from gradscope.errors import GradscopeError, one_of

if TYPE_CHECKING:  # importing the figures takes a second: not before the first one is drawn
    import plotly.graph_objects as go

    from gradscope.plots import Figure

_LONGEST = 8192
"""Characters of an encoded call, and of a view's address."""
_FORMULA = re.compile(r"[\s\"']*(?:[=@]|[+-](?![\d.]+\s*$))")
"""What spreadsheets compute; numbers with a sign are none."""


@dataclass(frozen=True)
class Call:
    """One figure of a store: enough to draw it, to list its numbers and to write it as Python."""

    figure: str
    """Name in `gradscope.plots.FIGURES`."""
    arguments: Mapping[str, Any]
    """Of the figure's function, as JSON can hold them."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables along t that the figure reads."""
        return _figure(self.figure).needs(self.arguments)

    def numbers(self, run: Recorded) -> pd.DataFrame:
        """What the figure shows. Not to be changed: it is kept.

        Raises
        ------
        GradscopeError
            The store does not hold what the arguments ask for.
        """
        return run.memo(
            ("numbers", self.encode()), lambda: _figure(self.figure).numbers(self._data(run), **self.arguments)
        )

    def draw(self, run: Recorded) -> "go.Figure":
        """The figure; kept, as `numbers` are."""
        numbers = self.numbers(run)
        return run.memo(("figure", self.encode()), lambda: _figure(self.figure).draw(numbers))

    def csv(self, run: Recorded, view: str = "") -> str:
        """The numbers, below lines that start with ``#`` and say where they come from.

        Parameters
        ----------
        view
            Address of the view in which the figure is shown.
        """
        numbers = self.numbers(run)
        about = {
            "run_id": run.ds.attrs.get("run_id", ""),
            "configuration_hash": run.ds.attrs.get("configuration_hash", ""),
            "store": run.path.name,
            "status": run.ds.attrs.get("status", ""),
            "figure": self.figure,
            "arguments": self.arguments,
            "view": view[:_LONGEST],
            **{key: value for key, value in numbers.attrs.items() if key != "coordinates"},
        }
        text = StringIO()
        for key, value in about.items():
            line = value if isinstance(value, str) else json.dumps(_jsonable(value), sort_keys=True)
            if line:
                text.write(harmless(f"# {key}: {_line(line)}") + "\n")
        told = {name: numbers[name].map(harmless) for name in numbers.select_dtypes(exclude="number")}
        table = numbers.assign(**told).rename(columns=harmless, index=harmless)
        table.to_csv(text, index=not isinstance(numbers.index, pd.RangeIndex))
        return text.getvalue()

    def python(self, run: Recorded) -> str:
        """A script that draws the figure from the store, for a notebook."""
        lines = [
            f"# {stamp(run)}",
            "import gradscope",
            f"from gradscope.plots import {self.figure}",
            "from gradscope.plots.style import PLOTLY_CONFIG",
            "",
            f"ds = gradscope.open({str(run.path)!r})",
            f"figure = {self.figure}(",
            "    ds,",
            *(f"    {name}={_code(value)}," for name, value in self.arguments.items()),
            ")",
            "figure.show(config=PLOTLY_CONFIG)",
            "",
        ]
        return "\n".join(lines)

    def encode(self) -> str:
        """As text that can stand in a URL."""
        text = json.dumps([self.figure, self.arguments], separators=(",", ":"), sort_keys=True)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Call":
        """From `encode`.

        Raises
        ------
        GradscopeError
            The text is none of `encode`, or the figure is unknown or takes other arguments.
        """
        if len(text) > _LONGEST:
            raise GradscopeError(f"call: {len(text)} characters; at most {_LONGEST}")
        try:
            decoded = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            figure, arguments = TypeAdapter(tuple[str, dict[str, Any]]).validate_python(decoded)
        except (ValueError, RecursionError):  # which binascii's, json's and pydantic's errors are
            raise GradscopeError("call: cannot be read; copy the whole address") from None
        _check(figure, arguments)
        return cls(figure, arguments)

    def _data(self, run: Recorded) -> xr.Dataset:
        """What the figure reads: scalars in memory, or where it needs tensors the whole store, lazily."""
        there = [name for name in self.variables if name in run.ds]
        lazy = not there or any(name in run.tensors for name in there)
        return run.ds if lazy else run.scalars(*there)


def harmless(value: Any) -> Any:
    """A text as a spreadsheet may have it: no part of it is taken for a formula, but led by an apostrophe."""
    if not isinstance(value, str):
        return value
    return "".join(f"'{part}" if _FORMULA.match(part) else part for part in re.split("([,;\t\r\n])", value))


def stamp(run: Recorded) -> str:
    """What a figure was made from, in one line."""
    digest = str(run.ds.attrs.get("configuration_hash", "unknown"))[:8]
    return _line(f"run {run.key} · configuration {digest} · store {run.path.name}")


def register(server: Flask, library: Library, prefix: str) -> None:
    """Serve the numbers of figures: ``numbers/<key>.csv?call=<encoded call>``, with ``view=<address>`` for the header.

    What does not exist is answered by 404 and a line of text.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """

    @server.get(f"{prefix.rstrip('/')}/numbers/<key>.csv")
    def numbers(key: str) -> Response:
        try:
            run = library.runs.get(key)
            if not isinstance(run, Recorded):
                raise GradscopeError(run.reason if run else f"run {key[:20]!r}: one of {', '.join(library.runs)}")
            call = Call.decode(request.args.get("call", ""))
            text = call.csv(run, request.args.get("view", ""))
        except GradscopeError as error:
            return Response(f"{error}\n", 404, {"Cache-Control": "no-store"}, mimetype="text/plain")
        name = f"{call.figure}-{run.key}.csv"
        headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename={name}"}
        return Response(text, headers=headers, mimetype="text/csv")


def _figure(name: str) -> "Figure":
    from gradscope.plots import FIGURES

    if name not in FIGURES:
        raise GradscopeError(f"call: unknown figure {name[:40]!r}; {one_of(name, FIGURES)}")
    return FIGURES[name]


def _check(figure: str, arguments: Mapping[str, Any]) -> None:
    """Raise GradscopeError where the figure does not take these arguments."""
    takes = signature(_figure(figure).numbers)
    try:
        takes.bind(None, **arguments)
    except TypeError as error:
        raise GradscopeError(f"call: {figure}: {error}") from None
    for name, value in arguments.items():
        try:
            TypeAdapter(takes.parameters[name].annotation).validate_python(value, strict=True)
        except ValidationError as error:
            raise GradscopeError(f"call: {figure}: {name}: {error.errors()[0]['msg']}") from None


def _jsonable(value: Any) -> Any:
    from gradscope.analysis.comparison import jsonable

    return jsonable(value)


def _code(value: Any) -> str:
    """As Python; a list of cells with one a line."""
    if not isinstance(value, list) or not any(isinstance(item, Mapping) for item in value):
        return repr(value)
    return "\n".join(["[", *(f"        {item!r}," for item in value), "    ]"])


def _line(text: str) -> str:
    """Without line breaks: names of stores and classes may hold anything."""
    return " ".join(text.split())
