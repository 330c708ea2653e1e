"""Signals, trajectories and sets of points along t: a panel for each timestep, a row for each cell and tensor."""

from collections.abc import Iterator

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from gradscope.analysis.means import Floats
from gradscope.plots.layout import finish, title_line
from gradscope.plots.plane import NOT_FINITE, arrows, in_plane
from gradscope.plots.stored_trajectory import SHOWN
from gradscope.plots.style import PALETTE, escaped

_ROW, _TOP = 110, 70
"""Height of a row of panels, and of what is above them, in pixels."""
_ARROW = 0.4
"""Length of the longest arrow in a panel, as a share of the largest coordinate."""


def draw_panels(numbers: xr.Dataset) -> go.Figure:
    """Draw tensors of curves or of sets of points, as `gradscope.plots.stored_trajectory` collects them.

    All panels of one tensor have the same limits, symmetric around 0. Below each gradient stands its norm, which it is
    divided by. Values that are not finite are counted in words.
    """
    curves = numbers.attrs["kind"] == "curves"
    if not curves:
        numbers = numbers.isel(axis=slice(2))
    names = [name for name in SHOWN if name in numbers]
    limits = {name: _largest(numbers[name].values) for name in names}
    if not curves and "x_t" in names:
        limits["gradient"] = limits["x_t"]  # arrows start there
    timestep = numbers["timestep"].values
    rows = [(cell, name) for cell in numbers["cell"].values for name in names]
    figure = make_subplots(
        len(rows), len(timestep), column_titles=[f"t = {t}" for t in timestep], horizontal_spacing=0.01,
        vertical_spacing=min(0.05, 0.3 / len(rows)),
    )  # fmt: skip
    for row, (cell, name) in enumerate(rows, 1):
        for column in range(1, len(timestep) + 1):
            panel = numbers.sel(cell=cell).isel(timestep=column - 1)
            for trace in _curves(panel[name]) if curves else _points(panel, name, limits[name]):
                trace.showlegend = curves and (row, column) == (1, 1) and bool(trace.name)
                figure.add_trace(trace, row=row, col=column)
            _words(figure, panel, name, row, column)
        _limit(figure, row, limits[name], across=not curves)
        figure.update_yaxes(title=SHOWN[name], showticklabels=True, row=row, col=1)
        if name == names[0]:
            figure.add_annotation(
                text=f"<b>{escaped(cell)}</b>", x=0, xref="paper", xanchor="left", yanchor="bottom", showarrow=False,
                y=1, yref=f"y{1 + (row - 1) * len(timestep) if row > 1 else ''} domain", yshift=16 if row == 1 else 2,
            )  # fmt: skip
    figure.update_xaxes(showticklabels=False)
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yref": "container", "yanchor": "top"}
    figure.update_layout(legend=legend)
    if curves and (lines := _lines(numbers[names[0]])) > len(PALETTE):
        title_line(figure, f"the first {len(PALETTE)} of {lines} lines")
    return finish(figure, _TOP + _ROW * len(rows)).update_layout(margin={"t": _TOP, "b": 20})


def _lines(tensor: xr.DataArray) -> int:
    """Number of lines of each curve."""
    line = [dim for dim in tensor.dims[:-1] if dim not in ("cell", "timestep")]
    return tensor.sizes[line[0]] if line else 1


def _limit(figure: go.Figure, row: int, limit: float, across: bool) -> None:
    """Give all panels of a row the same limits, symmetric around 0, upwards and perhaps across."""
    end = 1.1 * limit or 1
    figure.update_yaxes(range=[-end, end], showticklabels=False, nticks=3, row=row)
    if across:
        figure.update_xaxes(range=[-end, end], row=row)


def _curves(tensor: xr.DataArray) -> Iterator[go.Scatter]:
    """A line for each channel or action; as many as there are colours."""
    *line, along = tensor.dims
    values = tensor.values.reshape(-1, tensor.sizes[along])
    for number, (y, colour) in enumerate(zip(values, PALETTE, strict=False)):
        name = f"{line[0]} {number}" if line else ""
        yield go.Scatter(
            x=np.arange(len(y)), y=np.where(np.isfinite(y), y, np.nan), mode="lines" if len(y) > 1 else "markers",
            name=name, legendgroup=name, line={"color": colour, "width": 1.5},
            hovertemplate=f"{along} %{{x}}: %{{y:.3g}}",
        )  # fmt: skip


def _points(panel: xr.Dataset, name: str, limit: float) -> Iterator[go.Scatter]:
    """The points of a set; of a gradient, arrows from the points of x_t, or from the middle without it."""
    values = panel[name].values
    numbers = np.linspace(-limit, limit, len(values))
    start = panel["x_t"].values if "x_t" in panel else np.zeros_like(values)
    right, up = in_plane(start if name == "gradient" else values, numbers)
    markers = {"color": PALETTE[0], "size": 3 if name == "gradient" else 5}
    yield go.Scatter(
        x=right, y=up, mode="markers", marker=markers, text=np.arange(len(values)),
        hovertemplate="point %{text}: %{x:.3g}, %{y:.3g}<extra></extra>",
    )  # fmt: skip
    if name == "gradient":
        shift = np.stack(in_plane(values, np.zeros(len(values))), axis=1)
        longest = _largest(np.hypot(*shift.T)) or 1
        start = np.stack([right, up], axis=1)
        yield arrows(start, _ARROW * limit / longest * shift, PALETTE[1], hoverinfo="skip")


def _words(figure: go.Figure, panel: xr.Dataset, name: str, row: int, column: int) -> None:
    """The norm of a gradient, and the number of values that are not finite."""
    if name == "gradient":
        norm = float(panel["gradient_norm"])
        text = f"norm {norm:.1e}" if np.isfinite(norm) else "norm not finite"
        figure.update_xaxes(title={"text": text, "standoff": 2, "font": {"size": 11}}, row=row, col=column)
    if lost := int(panel[f"{name}_lost"]):
        figure.add_annotation(
            text=f"{lost} not finite", font_color=NOT_FINITE, x=0.5, y=0.98, xref="x domain", yref="y domain",
            yanchor="top", showarrow=False, row=row, col=column,
        )  # fmt: skip


def _largest(values: Floats) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(known.max()) if known.size else 0.0
