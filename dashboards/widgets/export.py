"""Export of figures: their numbers as CSV, the Python that draws them, and the route that serves the numbers."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from io import StringIO
from typing import TYPE_CHECKING, Any

import pandas as pd
import xarray as xr
from flask import Flask, Response, request
from pydantic import TypeAdapter, ValidationError

from dashboards.data.library import BrokenRun, Library, Opened
from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.data.two_runs import Drawn, TwoRuns, two_runs
from dashboards.widgets.file_names import file_name
from gradscope.analysis.by_class import class_sizes, of_class
from gradscope.errors import GradscopeError, one_of
from gradscope.store.dims import is_tensor

if TYPE_CHECKING:  # the figures take a second to import: not before the first one is drawn
    import plotly.graph_objects as go

    from gradscope.plots import Figure

_MAX_TEXT = 8192
"""Characters of an encoded call, and of a view's address."""
_ENCODED: TypeAdapter = TypeAdapter(tuple[str, dict[str, Any]] | tuple[str, dict[str, Any], int])
_FORMULA = re.compile(r"[\s\"']*(?:[=@]|[+-](?![\d.]+\s*$))")
"""A text that spreadsheets compute; a number with a sign is not one."""


@dataclass(frozen=True)
class Call:
    """The call that makes one figure of a store: enough to draw it, to list its numbers and to write it as Python."""

    figure: str
    """Name in `gradscope.plots.FIGURES`."""
    arguments: Mapping[str, Any]
    """Arguments of the figure's function, as JSON can hold them."""
    label: int | None = None
    """The target class whose samples the figure shows; None for all."""

    @property
    def variables(self) -> tuple[str, ...]:
        """Names of the variables along t that the figure reads."""
        return _figure(self.figure).needs(self.arguments)

    def numbers(self, run: Drawn) -> pd.DataFrame:
        """The numbers that the figure shows. They are cached: do not change them.

        Raises
        ------
        GradscopeError
            The store does not hold what the figure needs.
        """
        if isinstance(run, OpenLeaderboard) != _is_of_leaderboards(self.figure):
            raise GradscopeError(f"call: {run.path.name} is no store that {self.figure} shows")
        of_sample, rest = _figure(self.figure).of_sample, self._of_all_samples()

        def collected() -> pd.DataFrame:
            if of_sample is None or rest is None:
                return _figure(self.figure).numbers(**self._data(run), **self.arguments)
            return of_sample.numbers(rest.numbers(run), **self._data(run), sample=self.arguments["sample"])

        return run.memo(("numbers", self.encode()), collected)

    def draw(self, run: Drawn) -> "go.Figure":
        """The figure. It is cached: do not change it."""
        numbers = self.numbers(run)
        return run.memo(("figure", self.encode()), lambda: _figure(self.figure).draw(numbers))

    def page(self, run: Drawn) -> dict[str, Any]:
        """The figure as a page shows it: its data, and a layout of which the upper level may be changed."""
        draft, of_sample, rest = _figure(self.figure).draft, _figure(self.figure).of_sample, self._of_all_samples()
        if draft is None:
            return self.draw(run).to_dict()  # a copy: the cached figure is shared by threads

        def drafted() -> dict[str, Any]:
            if of_sample is None or rest is None:
                return draft(self.numbers(run)).to_dict()
            shared = run.memo(("shared", rest.encode()), lambda: of_sample.shared(rest.numbers(run)))
            return of_sample.draft(shared, self.numbers(run)).to_dict()

        shown = run.memo(("page", self.encode()), drafted)
        return shown | {"layout": {**shown["layout"]}}

    def _of_all_samples(self) -> "Call | None":
        """The same call without its sample; None where it names none."""
        rest = {key: value for key, value in self.arguments.items() if key != "sample"}
        return replace(self, arguments=rest) if self.arguments.get("sample") is not None else None

    def csv(self, run: Drawn, view: str = "") -> str:
        """The numbers as CSV. Its first lines start with ``#`` and state the origin.

        Parameters
        ----------
        view
            Address of the view that shows the figure.
        """
        numbers = self.numbers(run)
        origin = {
            "run_id": run.ds.attrs.get("run_id", ""),
            "configuration_hash": run.ds.attrs.get("configuration_hash", ""),
            "store": run.path.name,
            "store of b": run.other.path.name if isinstance(run, TwoRuns) else "",
            "status": run.ds.attrs.get("status", ""),
            "figure": self.figure,
            "arguments": self.arguments,
            "class": "" if self.label is None else class_sizes(run.ds)[self.label][0],
            "view": view[:_MAX_TEXT],
            **{key: value for key, value in numbers.attrs.items() if key != "coordinates"},
        }
        text = StringIO()
        for key, value in origin.items():
            line = value if isinstance(value, str) else json.dumps(_jsonable(value), sort_keys=True)
            if line:
                text.write(harmless(f"# {key}: {_one_line(line)}") + "\n")
        texts = {name: numbers[name].map(harmless) for name in numbers.select_dtypes(exclude="number")}
        table = numbers.assign(**texts).rename(columns=harmless, index=harmless)
        table.to_csv(text, index=not isinstance(numbers.index, pd.RangeIndex))
        return text.getvalue()

    def python(self, run: Drawn) -> str:
        """A script that draws the figure from the store."""
        opens, imports = (
            ("open_leaderboard", "from gradscope.analysis.oracle import open_leaderboard")
            if isinstance(run, OpenLeaderboard)
            else ("gradscope.open", "import gradscope")
        )
        stores = {"ds": run.path} | ({"other": run.other.path} if isinstance(run, TwoRuns) else {})
        one_class = self.label is not None
        lines = [
            f"# {stamp(run)}",
            imports,
            *(["from gradscope.analysis.by_class import of_class"] if one_class else ()),
            f"from gradscope.plots import {self.figure}",
            "from gradscope.plots.style import PLOTLY_CONFIG",
            "",
            *(f"{name} = {opens}({str(path)!r})" for name, path in stores.items()),
            *(f"{name} = of_class({name}, {self.label})" for name in stores if one_class),
            f"figure = {self.figure}(",
            "    ds,",
            *(f"    {name}={_code(value)}," for name, value in self.arguments.items()),
            *(["    other=other,"] if isinstance(run, TwoRuns) else ()),
            ")",
            "figure.show(config=PLOTLY_CONFIG)",
            "",
        ]
        return "\n".join(lines)

    def encode(self) -> str:
        """The call as text that is fit for a URL."""
        parts = [self.figure, self.arguments, *([] if self.label is None else [self.label])]
        text = json.dumps(parts, separators=(",", ":"), sort_keys=True)
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Call":
        """Inverse of `encode`.

        Raises
        ------
        GradscopeError
            The text is not an encoded call, the figure is unknown, or its arguments do not fit.
        """
        if len(text) > _MAX_TEXT:
            raise GradscopeError(f"call: {len(text)} characters; at most {_MAX_TEXT}")
        try:
            decoded = json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
            figure, arguments, *label = _ENCODED.validate_python(decoded)
        except (ValueError, RecursionError):  # errors of binascii, json and pydantic are ValueErrors
            raise GradscopeError("call: cannot be read; copy the whole address") from None
        _check_arguments(figure, arguments)
        return cls(figure, arguments, *label)

    def _data(self, run: Drawn) -> dict[str, xr.Dataset]:
        """Arguments with the data that the figure reads: the store, and that of cell b where it is another one."""
        if isinstance(run, TwoRuns):
            return {"ds": self._read(run.run), "other": self._read(run.other)}
        return {"ds": self._read(run)}

    def _read(self, run: Opened) -> xr.Dataset:
        """The data of one store: scalars in memory; the whole store, lazily, where the figure needs tensors."""
        stored = [name for name in self.variables if name in run.ds]
        lazy = not stored or any(is_tensor(run.ds, name) for name in stored)
        ds = run.ds if lazy else run.scalars(*stored)
        return ds if self.label is None else of_class(ds, self.label)


def harmless(value: Any) -> Any:
    """A text that spreadsheets do not compute: an apostrophe precedes each part that looks like a formula."""
    if not isinstance(value, str):
        return value
    return "".join(f"'{part}" if _FORMULA.match(part) else part for part in re.split("([,;\t\r\n])", value))


def stamp(run: Drawn) -> str:
    """The origin of a figure in one line: run, configuration and store."""
    if isinstance(run, TwoRuns):
        return f"{stamp(run.run)}; b: {stamp(run.other)}"
    digest = str(run.ds.attrs.get("configuration_hash", "unknown"))[:8]
    return _one_line(f"run {run.key} · configuration {digest} · store {run.path.name}")


def register(server: Flask, library: Library, prefix: str) -> None:
    """Serve the numbers of figures: ``numbers/<key>.csv?call=<encoded call>``, with ``view=<address>`` for the header.

    An unknown run or figure is answered with 404 and one line.

    Parameters
    ----------
    prefix
        Path of the app on its host.
    """

    @server.get(f"{prefix.rstrip('/')}/numbers/<key>.csv")
    def numbers(key: str) -> Response:
        try:
            run = two_runs(library, key) or library.runs.get(key)
            if run is None:
                raise GradscopeError(f"run {key[:20]!r}: one of {', '.join(library.runs)}")
            if not isinstance(run, Drawn):
                raise GradscopeError(run.reason if isinstance(run, BrokenRun) else f"{run.path} has no figures")
            call = Call.decode(request.args.get("call", ""))
            text = call.csv(run, request.args.get("view", ""))
        except GradscopeError as error:
            return Response(f"{error}\n", 404, {"Cache-Control": "no-store"}, mimetype="text/plain")
        name = file_name(run.path.name, call.figure, call.arguments)
        headers = {"Cache-Control": "no-store", "Content-Disposition": f"attachment; filename={name}.csv"}
        return Response(text, headers=headers, mimetype="text/csv")


def _figure(name: str) -> "Figure":
    from gradscope.plots import FIGURES, ORACLE_FIGURES

    known = {**FIGURES, **ORACLE_FIGURES}
    if name not in known:
        raise GradscopeError(f"call: unknown figure {name[:40]!r}; {one_of(name, known)}")
    return known[name]


def _is_of_leaderboards(name: str) -> bool:
    from gradscope.plots import ORACLE_FIGURES

    return name in ORACLE_FIGURES


def _check_arguments(figure: str, arguments: Mapping[str, Any]) -> None:
    """Raise GradscopeError where the figure does not take these arguments."""
    takes = signature(_figure(figure).numbers)
    try:
        if "other" in arguments:  # a store, which the address of the figure names
            raise TypeError("got an unexpected argument 'other'")
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
    """A value as Python; a list of cells has one per line."""
    if not isinstance(value, list) or not any(isinstance(item, Mapping) for item in value):
        return repr(value)
    return "\n".join(["[", *(f"        {item!r}," for item in value), "    ]"])


def _one_line(text: str) -> str:
    """Names of stores and classes may have line breaks."""
    return " ".join(text.split())
