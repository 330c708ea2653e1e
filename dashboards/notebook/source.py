"""A store in a notebook: its cells, the tiles of its tensors and the curves of its diagnostics."""

from collections.abc import Sequence
from math import prod
from typing import Any, NamedTuple

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from dashboards.data.cache import Cache
from dashboards.data.limits import check_picture
from dashboards.data.open_run import TENSORS
from dashboards.images import png
from dashboards.images.kinds import draw
from dashboards.images.tensor_reader import CROWD
from dashboards.images.tensors import MAPS, Floats, Tensors
from dashboards.images.words import limit_text
from gradscope import plots
from gradscope.analysis.cells import cells, place
from gradscope.analysis.in_memory import in_memory
from gradscope.analysis.missing import absent
from gradscope.analysis.selections import restore_dims
from gradscope.analysis.vectors import norm
from gradscope.plots.curves import curves
from gradscope.plots.style import GREY
from gradscope.store.dims import over, sample_dims
from gradscope.store.sample_kind import sample_kind, why_not_drawn

_MEMORY = 96 * 2**20
"""Bytes of tensors that stay in memory."""
_BLOCK = 4 * 2**20
"""Bytes of one tensor's timesteps that are read at once."""


class Tile(NamedTuple):
    """One tensor of one cell at the cursor."""

    tensor: str
    picture: bytes
    """A PNG; empty where the tensor is not written."""
    texts: tuple[str, ...]
    """Its norm, its range, and what its limit is."""


class Source:
    """What a view shows.

    Parameters
    ----------
    ds
        A store as `gradscope.open` gives it, or a selection of it.

    Raises
    ------
    GradscopeError
        This is not a store, or a chunk cannot be read.
    """

    def __init__(self, ds: xr.Dataset) -> None:
        self.path: str = ds.encoding.get("source", "")
        """Where the store lies; empty for data in memory."""
        self.ds = ds = in_memory(restore_dims(ds))
        self.cells = list(cells(ds))
        marker = ds["written"].transpose(*over(ds)).values
        self.written = marker.reshape(len(self.cells), *marker.shape[-2:])
        """The marker, ``(cells, samples, timesteps)``."""
        own = sample_dims(ds)
        self._kind = sample_kind(own)
        stored = [name for name in TENSORS if name in ds]
        lost = [dim for name in stored for dim in own if dim not in ds[name].dims]
        self.not_drawn = why_not_drawn(ds) if stored else absent(ds, "gradient")
        if lost and not self.not_drawn:
            self.not_drawn = f"tensors are not drawn: the selection has no dimension {lost[0]}"
        self.tensors = [] if self.not_drawn else stored
        self._read = Cache(_MEMORY, weigh=lambda tensor: tensor.nbytes)

    def tiles(self, numbers: Sequence[int], sample: int, step: int) -> list[list[Tile]]:
        """The tiles of some cells at a place: a row for each cell, a tile for each tensor, each with its own limits."""
        check_picture(len(numbers) * len(self.tensors) * prod(self.ds.sizes[dim] for dim in self._kind.dims))
        written = self.written[list(numbers), sample, step] >= 3
        values = {name: np.stack([self._tensor(name, n, sample, step) for n in numbers]) for name in self.tensors}
        values = {name: np.where(_wide(written, x), x, 0) for name, x in values.items()}
        dims = ("row", *self._kind.dims)
        norms = {name: norm(self.ds, xr.DataArray(x, dims=dims)).values for name, x in values.items()}
        drawn = draw(self._kind, Tensors(values, written, False, sample, self._crowd(numbers, step)))
        rows: list[list[Tile]] = [[] for _ in numbers]
        for name, (pixels, limits) in drawn.items():
            for row, there in enumerate(written):
                if not there:
                    rows[row].append(Tile(name, b"", ("not recorded",)))
                    continue
                texts = self._texts(name, values[name][row], norms[name][row], limits[row])
                rows[row].append(Tile(name, png.encode(pixels[row]), texts))
        return rows

    def curves(
        self, name: str, numbers: Sequence[int], sample: int, focus: int, span: tuple[float, float] | None
    ) -> go.Figure:
        """A diagnostic along t in some cells, with the sample's own values in the cell `focus`.

        Parameters
        ----------
        span
            The first and the last timestep of a finding, which are shaded.
        """
        shown = [dict(self.cells[number]) for number in numbers]
        figure = curves(self.ds, name, shown, self.ds["sample"].values[sample].item(), self.cells[focus])
        if span is not None:
            figure.add_vrect(x0=span[0], x1=span[1], fillcolor=GREY, opacity=0.15, line_width=0, layer="below")
        return figure

    def _tensor(self, name: str, number: int, sample: int, step: int) -> Floats:
        """One tensor, with the dimensions of its kind."""
        variable = self.ds[name].isel(place(self.ds, self.cells[number])).isel(sample=sample)
        size = variable.dtype.itemsize * prod(self.ds.sizes[dim] for dim in self._kind.dims)
        steps = max(1, _BLOCK // max(size, 1))
        first = step - step % steps

        def read() -> Floats:
            part = variable.isel(timestep=slice(first, first + steps)).transpose("timestep", *self._kind.dims)
            return np.asarray(part.values)

        return self._read.get((name, number, sample, first), read)[step - first]

    def _crowd(self, numbers: Sequence[int], step: int) -> dict[str, Floats]:
        """Of points, those of the first samples at a step, by tensor, ``(rows, samples, axis)``."""
        if self._kind.name != "point":
            return {}
        return {
            name: np.stack([self._points(name, number, step) for number in numbers])
            for name in self.tensors
            if name not in MAPS
        }

    def _points(self, name: str, number: int, step: int) -> Floats:
        at = {"sample": slice(CROWD), "timestep": step}
        found = self.ds[name].isel(place(self.ds, self.cells[number])).isel(at).transpose("sample", *self._kind.dims)
        there = self.written[number, :CROWD, step] >= 3
        return np.where(there[:, None], found.values, np.nan)

    def _texts(self, name: str, values: Floats, length: float, limit: float) -> tuple[str, ...]:
        finite = values[np.isfinite(values)]
        texts = [f"norm {length:.3g}" if np.isfinite(length) else "norm not finite"]
        if finite.size:
            texts.append(f"{finite.min():.3g} to {finite.max():.3g}")
        if lost := values.size - finite.size:
            texts.append(f"not finite: {lost} (magenta)")
        if text := limit_text(self._kind, name):
            texts.append(text.format(f"{limit:.3g}"))
        elif name in MAPS:
            texts.append("zero" if limit == 0 else f"colours to ±{limit:.3g}")
        return tuple(texts)


def diagnostics(ds: xr.Dataset) -> list[str]:
    """Names of the diagnostics over cells, sample and timestep."""
    return [str(name) for name, v in ds.data_vars.items() if {*v.dims} == {*over(ds)} and v.dtype.kind == "f"]


def _wide(flags: Any, like: Floats) -> Any:
    """One flag for each row, in a shape that broadcasts with tensors."""
    return flags.reshape(-1, *[1] * (like.ndim - 1))


PLOTLY_CONFIG = {**plots.PLOTLY_CONFIG, "displayModeBar": False, "responsive": True}
"""For the figures of a view."""
