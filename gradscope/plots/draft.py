"""A figure in the making, as plain dicts: plotly checks all of it at once when it is done."""

from base64 import b64encode
from collections.abc import Mapping
from copy import deepcopy
from functools import lru_cache
from typing import Any, Self

import numpy as np
import plotly.graph_objects as go
import plotly.io
from numpy.typing import NDArray


class Draft:
    """Traces and layout of a figure, in which all subplots are in one column.

    A plotly figure checks and copies at each change, which takes most of the time of drawing. The methods do as those
    of `plotly.graph_objects.Figure`, without underscores in place of nested dicts.

    Parameters
    ----------
    layout
        The layout at first, with its axes; by default those of a figure without subplots.

    Examples
    --------
    >>> draft = Draft()
    >>> draft.add_trace({"x": [0, 1], "y": [2, 3]})
    >>> draft.update_yaxes(title={"text": "norm"}).figure().layout.yaxis.title.text
    'norm'
    """

    def __init__(self, layout: Mapping[str, Any] | None = None) -> None:
        self._traces: list[dict[str, Any]] = []
        self._layout: dict[str, Any] = deepcopy(dict(layout or {"xaxis": {}, "yaxis": {}}))

    def add_trace(self, trace: Mapping[str, Any], row: int | None = None) -> None:
        """Add a trace; `row` is that of its subplot."""
        axes = {} if row is None else {"xaxis": _numbered("x", row), "yaxis": _numbered("y", row)}
        self._traces.append({"type": "scatter", **trace, **axes})

    def add_annotation(self, **annotation: Any) -> None:
        self._layout.setdefault("annotations", []).append(annotation)

    def update_layout(self, **changes: Any) -> Self:
        _merge(self._layout, changes)
        return self

    def update_xaxes(self, row: int | None = None, **changes: Any) -> Self:
        return self._update_axes("xaxis", row, changes)

    def update_yaxes(self, row: int | None = None, **changes: Any) -> Self:
        return self._update_axes("yaxis", row, changes)

    def update_annotations(self, **changes: Any) -> Self:
        for annotation in self._layout.get("annotations", []):
            _merge(annotation, changes)
        return self

    def copy(self) -> Self:
        """The same figure so far, of which traces can be added and the layout can change."""
        other = type(self)(self._layout)
        other._traces = [*self._traces]
        return other

    def packed(self) -> Self:
        """The same figure with arrays as plotly.js reads them: written once for all figures that begin with it."""
        other = self.copy()
        other._traces = [_plain(trace) for trace in self._traces]
        return other

    def figure(self) -> go.Figure:
        """The figure.

        Raises
        ------
        ValueError
            A trace or the layout has a property or a value that plotly does not know.
        """
        return go.Figure(data=self._traces, layout=self._layout)

    def to_dict(self) -> dict[str, Any]:
        """The figure as plotly.js reads it, unchecked: ``figure().to_dict()`` takes ten times as long."""
        layout = {"template": _template(plotly.io.templates.default), **self._layout}
        return {"data": [_plain(trace) for trace in self._traces], "layout": _plain(layout)}

    def _update_axes(self, kind: str, row: int | None, changes: Mapping[str, Any]) -> Self:
        names = [name for name in self._layout if name.startswith(kind)] if row is None else [_numbered(kind, row)]
        for name in names:
            _merge(self._layout[name], changes)
        return self


def _numbered(kind: str, row: int) -> str:
    """Plotly's name of an axis."""
    return kind if row == 1 else f"{kind}{row}"


@lru_cache(maxsize=1)
def _template(name: str) -> dict[str, Any]:
    """Plotly's template of a name, which the figures of this process have by default."""
    return go.Figure().to_dict()["layout"]["template"]


def _plain(value: Any) -> Any:
    """A value whose arrays are as plotly.js reads them."""
    if isinstance(value, np.ndarray):
        return _typed(value)
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _typed(array: NDArray[Any]) -> Any:
    """An array of numbers as base64, the fastest form to write and to read; other arrays as lists."""
    if array.dtype.kind == "i" and array.dtype.itemsize == 8 and (array == array.astype(np.int32)).all():
        array = array.astype(np.int32)  # JavaScript's arrays have no int64
    if array.dtype.kind not in "fi" or array.dtype.itemsize not in (4, 8) or array.dtype == np.int64:
        return array.tolist()
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
    typed = {"dtype": array.dtype.str[1:], "bdata": b64encode(little.tobytes()).decode()}
    return typed if array.ndim == 1 else typed | {"shape": ", ".join(map(str, array.shape))}


def _merge(into: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping):
            _merge(into.setdefault(key, {}), value)
        else:
            into[key] = value
