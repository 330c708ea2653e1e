"""The widget of `ds.gradscope.show()`."""

import base64
import importlib.resources
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import anywidget
import plotly
import plotly.graph_objects as go
import traitlets

from dashboards.notebook.cursor import Cursor
from dashboards.notebook.link import ADDRESS, dashboard_link
from dashboards.notebook.source import PLOTLY_CONFIG, Source, Tile
from dashboards.state import CELLS_MAX
from dashboards.widgets.swatches import swatch
from gradscope.analysis.cells import cell_name
from gradscope.analysis.findings import Finding
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.plots.cell_style import coordinates, look
from gradscope.plots.stored_trajectory import SHOWN

_HERE = Path(__file__).parent
_ASSETS = _HERE.parent / "assets"
_HEIGHT = 240
"""Height of a curve in pixels, as in view.css."""


def _texts(suffix: str) -> str:
    """The mark of the cursor, which is the dashboard's, and the view."""
    return "\n".join(
        file.read_text(encoding="utf-8") for file in (_ASSETS / f"cursor{suffix}", _HERE / f"view{suffix}")
    )


class View(anywidget.AnyWidget):
    """One position in a store: maps of its tensors, and its curves. `gradscope.accessor.Accessor.show` makes it.

    Its slider, its lists and a click on a curve move the position; `cursor`, `tiles` and `figures` follow.
    """

    _esm = _texts(".js")
    _css = _texts(".css")
    _cell = traitlets.Int().tag(sync=True)
    _sample = traitlets.Int().tag(sync=True)
    _step = traitlets.Int().tag(sync=True)
    _about = traitlets.Dict().tag(sync=True)
    _frame = traitlets.Dict().tag(sync=True)
    _figures: Any = traitlets.List().tag(sync=True)

    def __init__(self, source: Source, cursor: Cursor) -> None:
        self._source, self._cursor, self._shown = source, cursor, cursor.cells
        self._ends = {"_cell": len(source.cells), "_sample": source.written.shape[1], "_step": source.written.shape[2]}
        super().__init__(_cell=cursor.cell, _sample=cursor.sample, _step=cursor.step, _about=self._describe())
        self._draw()
        self._refresh()
        self.observe(lambda change: self._move(), names=["_cell", "_sample"])
        self.observe(lambda change: self._refresh(), names=["_step"])
        self.on_msg(_send_plotly)

    def __repr__(self) -> str:
        return f"View({cell_name(self.cell)}; sample {self.sample}; t = {self.timestep:g})"

    @property
    def finding(self) -> Finding | None:
        """The finding that is shown."""
        return self._cursor.finding

    @property
    def cell(self) -> Mapping[str, Any]:
        """The focused cell."""
        return dict(self._source.cells[self._cell])

    @property
    def sample(self) -> int:
        """The number of the sample."""
        return int(self._source.ds["sample"].values[self._sample])

    @property
    def timestep(self) -> float:
        """The timestep."""
        return float(self._source.ds["timestep"].values[self._step].item())

    @property
    def cursor(self) -> dict[str, Any]:
        """Selects the position: ``ds.sel(view.cursor)``."""
        return {**self.cell, "sample": self.sample, "timestep": self.timestep}

    @property
    def figures(self) -> list[go.Figure]:
        """The curves at the cursor, as plotly figures."""
        finding, (first, last) = self.finding, self._span()
        span = None if finding is None or first is None or last is None else (first, last)
        draw = self._source.curves
        return [draw(name, self._shown, self._sample, self._cell, span) for name in self._cursor.variables]

    def tiles(self) -> list[Tile]:
        """The pictures of the focused cell's tensors at the cursor: a PNG for each, with its norm and range."""
        return self._source.tiles([self._cell], self._sample, self._step)[0] if self._source.tensors else []

    def link(self, address: str = ADDRESS) -> str:
        """The address of this position in the dashboard.

        Parameters
        ----------
        address
            Where ``gradscope dashboard STORE`` listens.

        Raises
        ------
        GradscopeError
            The data were not opened from one store on this machine.
        """
        ds = self._source.ds
        at = {"sample": self.sample} | {
            name: ds[name].values[self._step].item() for name in ("timestep", "step") if name in ds.coords
        }
        return dashboard_link(self._source.path, self.cell, at, address)

    @traitlets.validate("_cell", "_sample", "_step")
    def _check(self, proposal: Mapping[str, Any]) -> int:
        name, value = proposal["trait"].name, int(proposal["value"])
        return min(max(value, 0), self._ends[name] - 1)

    def _span(self) -> tuple[float | None, float | None]:
        finding = self.finding
        return (None, None) if finding is None else (finding.first_timestep, finding.last_timestep)

    def _move(self) -> None:
        """The cell or the sample changed."""
        if self._cell not in self._shown:
            one = len(self._shown) == 1
            self._shown = (self._cell,) if one else tuple(sorted((*self._shown[: CELLS_MAX - 1], self._cell)))
        self._draw()
        self._refresh()

    def _draw(self) -> None:
        plain = {"showlegend": False, "margin_t": 12, "height": _HEIGHT}  # swatches name the lines
        shown = (figure.update_layout(plain) for figure in self.figures)
        self._figures = [figure.to_json() for figure in shown]

    def _refresh(self) -> None:
        """Draw the tiles at the cursor."""
        ds, source = self._source.ds, self._source
        rows = source.tiles(self._shown, self._sample, self._step) if source.tensors else []
        kept = source.written[self._cell] >= 3
        note = source.not_drawn
        if source.tensors and not kept[self._sample, self._step]:
            samples = ds["sample"].values[kept.any(axis=1)]
            note = f"no tensors here; {len(samples)} samples have some" + (
                f", from {samples[0]} to {samples[-1]}" if len(samples) else ""
            )
        self._frame = {
            "timestep": self.timestep,
            "where": f"t = {self.timestep:g}, step {self._step + 1} of {self._ends['_step']}",
            "sample": f"sample {self.sample}, target {self._target()}",
            "rows": [
                {"cell": number, "tiles": [{"png": tile.picture, "texts": list(tile.texts)} for tile in row]}
                for number, row in zip(self._shown, rows, strict=False)
            ],
            "note": note,
        }

    def _target(self) -> str:
        ds = self._source.ds
        return class_name(class_names(ds), int(ds["label"].values[self._sample]))

    def _describe(self) -> dict[str, Any]:
        """What stays while the cursor moves."""
        finding, source = self._cursor.finding, self._source
        about: dict[str, Any] = {
            "cells": [
                {"name": cell_name(cell), "swatch": swatch(look(coordinates(source.ds), cell))} for cell in source.cells
            ],
            "samples": source.ds["sample"].values.tolist(),
            "timesteps": source.ds["timestep"].values.tolist(),
            "tensors": [SHOWN.get(name, name) for name in source.tensors],
            "variables": [_described(source, name) for name in self._cursor.variables],
            "config": PLOTLY_CONFIG,
            "caption": f"Lines: means over samples; bands of up to three cells, or of the one in focus: 50 and 90 % of "
            f"samples; thin grey: the chosen sample{'; grey area: the finding' if finding else ''}.",
        }
        if finding is not None:
            about["finding"] = {
                "head": f"{finding.severity}: {finding.signature}",
                "severity": finding.severity,
                "texts": [finding.evidence, f"Try: {finding.advice}", f"Shown: {self._cursor.why}"],
            }
            if not self._cursor.why:
                about["finding"]["texts"].pop()
        return about

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The widget, and a picture of it for pages that run nothing."""
        found = super()._repr_mimebundle_(**options)
        bundle = found[0] if isinstance(found, tuple) else found
        if bundle is not None:
            bundle["text/html"] = self._still()
        return found

    def _still(self) -> str:
        tiles = "".join(_figure(tile) for tile in self.tiles() if tile.picture)
        head = self.finding._repr_html_() if self.finding is not None else ""
        where = f"{cell_name(self.cell)}; {self._frame['sample']}; {self._frame['where']}"
        return f"{head}<p>{escape(where)}</p>{tiles}"


def _described(source: Source, name: str) -> str:
    text = source.ds[name].attrs.get("long_name", "")
    return f"{name}: {text}" if text else name


def _figure(tile: Tile) -> str:
    """A tile as HTML that needs no other file."""
    label, data = SHOWN.get(tile.tensor, tile.tensor), base64.b64encode(tile.picture).decode()
    style = "image-rendering:pixelated"
    picture = f'<img alt="{escape(label)}" height="128" style="{style}" src="data:image/png;base64,{data}">'
    text = "<br>".join(map(escape, (label, *tile.texts)))
    return f'<figure style="display:inline-block;margin:4px">{picture}<figcaption>{text}</figcaption></figure>'


def _send_plotly(widget: View, content: Any, buffers: Any) -> None:
    """Give the page plotly.js, which it asks for once: nothing comes from another host."""
    if content == {"want": "plotly"}:
        code = importlib.resources.files(plotly) / "package_data" / "plotly.min.js"
        widget.send({"plotly": True}, [code.read_bytes()])
