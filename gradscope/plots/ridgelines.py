"""The distribution of a diagnostic over samples, at some timesteps, in a few cells side by side."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from gradscope.analysis.cells import Cell, cell_name
from gradscope.analysis.diagnostics import described
from gradscope.analysis.means import Floats
from gradscope.errors import GradscopeError
from gradscope.plots.cell_style import cell_number, coordinates, look
from gradscope.plots.figure_numbers import by_cell, cell_values, evenly, full_cells, require_diagnostic
from gradscope.plots.layout import finish
from gradscope.plots.style import escaped, label, shade

_CELLS, _TIMESTEPS, _POINTS = 4, 40, 160
"""Largest number of cells side by side and of ridges per cell; number of points per ridge."""
_OVERLAP = 1.5
"""Height of a ridge's peak, as a multiple of the distance between ridges."""
_ROW = 30
"""Distance between ridges in pixels."""
_LEAST = 8
"""Smallest number of samples of a ridge; of fewer only the median is drawn."""


def ridgelines(ds: xr.Dataset, name: str, cells: Sequence[Mapping[str, str | float]], timesteps: int = 12) -> go.Figure:
    """Distributions of a diagnostic over samples along t: a column for each cell, all with the same limits.

    Each ridge is a kernel estimate, scaled to its own peak; a bar marks its median. There is none of fewer than 8
    samples, and none beyond the values that the diagnostic can have.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep. Norms, and others that span orders of magnitude, are shown as
        log10.
    cells
        Names of the cells, at most 4; dimensions of size one may be left out.
    timesteps
        Largest number of timesteps, at most 40; they are spaced evenly among those with values.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic or cell, or there are too many cells or timesteps to show.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> figure = ridgelines(synthetic.trajectories(samples=8), "log_prob", [{}], timesteps=3)
    >>> figure.layout.yaxis.ticktext
    ('t = 980', 't = 500', 't = 0')
    """
    return draw_ridgelines(ridgelines_numbers(ds, name, cells, timesteps))


def ridgelines_numbers(
    ds: xr.Dataset, name: str, cells: Sequence[Mapping[str, str | float]], timesteps: int = 12
) -> pd.DataFrame:
    """Numbers of `ridgelines`, with the same arguments: one row per cell, timestep and value.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``value``, the same grid for all ridges; ``density``, the Gaussian kernel estimate with
        Silverman's bandwidth, reflected at the bounds of the diagnostic, 0 for fewer than 8 samples. For the whole
        ridge: its ``median``; ``n``, the number of samples in it; ``not_finite`` and ``zero``, the numbers of samples
        that were left out (0 only where log10 is shown).
    """
    require_diagnostic(ds, name)
    shown = full_cells(ds, cells)
    if len(shown) > _CELLS or not 1 <= timesteps <= _TIMESTEPS:
        raise GradscopeError(
            f"ridgelines: got {len(shown)} cells and {timesteps} timesteps; at most {_CELLS} and {_TIMESTEPS}"
        )
    recorded = np.stack([cell_values(ds, name, cell) for cell in shown])
    found, title, about = np.where(np.isfinite(recorded), recorded, np.nan), label(ds, name), described(ds, name)
    bounds = (about.low, about.high)
    if about.logarithmic:
        bounds = (None, None)
        found, title = np.log10(found, out=np.full_like(found, np.nan), where=found > 0), f"log10 {title}"
    there = np.flatnonzero(np.isfinite(found).any(axis=(0, 1)))
    if not len(there):
        raise GradscopeError(f"{title} has no finite values in these cells")
    steps = evenly(there, timesteps)
    grid = np.linspace(*_limits(found[..., steps], *bounds), _POINTS)
    parts = []
    for k, cell in enumerate(shown):
        written = cell_values(ds, "written", cell) > 0
        for step in steps:
            column = recorded[k, written[:, step], step]
            sample = found[k, np.isfinite(found[k, :, step]), step]
            ridge = {
                "timestep": ds["timestep"].values[step],
                "value": grid,
                "density": _density(sample, grid, *bounds),
                "median": np.median(sample) if len(sample) else np.nan,
                "n": len(sample),
                "not_finite": (~np.isfinite(column)).sum(),
                "zero": np.isfinite(column).sum() - len(sample),
            }
            parts.append(pd.DataFrame({**cell, **ridge}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {"label": title, "coordinates": coordinates(ds)}
    return numbers


def draw_ridgelines(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `ridgelines_numbers`."""
    known, parts = numbers.attrs["coordinates"], list(by_cell(numbers))
    timesteps = numbers["timestep"].unique()
    figure = make_subplots(
        1,
        len(parts),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        subplot_titles=[f"{_two_lines(cell)}<br>{_counted(rows)}" for cell, rows in parts],
    )
    for column, (cell, rows) in enumerate(parts, 1):
        colour, meta = look(known, cell).colour, {"cell": cell_number(known, cell)}
        ridges = rows.groupby("timestep", sort=False).first()
        shapes = rows["density"].to_numpy().reshape(len(ridges), -1)
        peaks = shapes.max(axis=1, keepdims=True)
        base = np.arange(float(len(ridges)))
        x, y = _outlines(rows["value"].to_numpy()[: shapes.shape[1]], base, shapes / np.where(peaks > 0, peaks, 1))
        outline = {"mode": "lines", "fill": "toself", "line": {"color": colour, "width": 1.25}, "hoverinfo": "skip"}
        figure.add_trace(go.Scatter(x=x, y=y, fillcolor=shade(colour, 0.4), meta=meta, **outline), row=1, col=column)
        medians = go.Scatter(
            x=ridges["median"],
            y=base - 0.25,
            mode="markers",
            marker={"symbol": "line-ns", "size": 13, "line": {"width": 2.5, "color": colour}},
            customdata=np.stack([ridges.index, ridges["n"]], axis=1),
            hovertemplate="t = %{customdata[0]}: median %{x:.3g}, N = %{customdata[1]}<extra></extra>",
            meta=meta,
        )
        figure.add_trace(medians, row=1, col=column)
    rows = np.arange(len(timesteps))
    figure.update_xaxes(title={"text": escaped(numbers.attrs["label"]), "font_size": 12}, nticks=5)
    figure.update_yaxes(tickvals=rows, range=[len(rows) - 0.6, -_OVERLAP - 0.1], zeroline=False)
    figure.update_yaxes(ticktext=[f"t = {t}" for t in timesteps], title="density (Gaussian kernel), to its peak", col=1)
    figure.update_layout(showlegend=False)
    return finish(figure, 170 + _ROW * len(timesteps)).update_layout(margin_t=84).update_annotations(font_size=11)


def _limits(found: Floats, lowest: float | None, highest: float | None) -> tuple[float, float]:
    """The smallest and the largest value, with some room on both sides, but within the bounds of the diagnostic."""
    known = found[np.isfinite(found)]
    low, high = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    room = 0.03 * (high - low) or max(0.03 * abs(high), 1e-6)
    first = low - room if lowest is None else max(low - room, min(lowest, low))
    last = high + room if highest is None else min(high + room, max(highest, high))
    return (float(first), float(last)) if first < last else (float(low - room), float(high + room))


def _density(sample: Floats, grid: Floats, lowest: float | None, highest: float | None) -> Floats:
    """Gaussian kernel estimate with Silverman's bandwidth, but at least the distance of two points of the grid.

    Bounds reflect the kernels (Silverman, Density Estimation, 1986, section 2.10), so that no mass lies beyond them.
    """
    if len(sample) < _LEAST:
        return np.zeros(len(grid))
    quarters = np.quantile(sample, (0.25, 0.75))
    spread = min(sample.std(), (quarters[1] - quarters[0]) / 1.34) or sample.std()
    width = max(0.9 * spread * len(sample) ** -0.2, 2 * (grid[1] - grid[0]))
    mirrored = [2 * bound - sample for bound in (lowest, highest) if bound is not None]
    kernels = np.exp(-0.5 * ((grid[:, None] - np.concatenate([sample, *mirrored])) / width) ** 2)
    return np.asarray(kernels.sum(axis=1) / (len(sample) * width * np.sqrt(2 * np.pi)))


def _outlines(grid: Floats, base: Floats, heights: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Polygons on their base lines, separated by gaps."""
    ones = np.ones_like(heights)
    x = np.concatenate([ones * grid, ones * grid[::-1], np.full((len(base), 1), np.nan)], axis=1)
    y = np.concatenate([base[:, None] - _OVERLAP * heights, ones * base[:, None], x[:, -1:]], axis=1)
    return x.ravel().astype(np.float32), y.ravel().astype(np.float32)


def _two_lines(cell: Cell) -> str:
    """A cell's name in two lines, for a narrow column."""
    return escaped(cell_name(cell)).replace(", ", "<br>", 1)


def _counted(rows: pd.DataFrame) -> str:
    """The number of samples in the ridges, and of values that were left out."""
    ridges = rows.groupby("timestep", sort=False).first()
    least, most = ridges["n"].min(), ridges["n"].max()
    lost = [f"{ridges[kind].sum()} {kind.replace('_', ' ')}" for kind in ("not_finite", "zero") if ridges[kind].any()]
    n = f"N = {most}" if least == most else f"N = {least} to {most}"
    few = ["too few for densities"] if most < _LEAST else []
    return f"{n}<br>{', '.join([*lost, *few]) or 'all finite'}"
