"""Classifier-free guidance along t: the gradient's parts along and across the conditional x0-hat, and their size."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from gradscope.analysis.cells import cell_name
from gradscope.analysis.classifier_free import CHANGE, NEEDS, PARALLEL, PERPENDICULAR, QUANTITIES, SHARE, quantity
from gradscope.analysis.means import mean_interval
from gradscope.analysis.missing import require
from gradscope.plots.bands import band
from gradscope.plots.cell_style import coordinates, line, look
from gradscope.plots.figure_numbers import full_cells
from gradscope.plots.layout import along_t, finish, legend_above
from gradscope.plots.style import escaped, shade

TITLES: Mapping[str, str] = {
    PARALLEL: "part along the conditional x0-hat, norm",
    PERPENDICULAR: "part across it, norm",
    SHARE: "share of the part along, |parallel| / |gradient|",
    CHANGE: "change of the predicted noise, |eps_c - eps_u| / |eps_u|",
}
"""Title of each panel."""
_HOVER = "t = %{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], N = %{customdata[2]}"
_PLACES = {PARALLEL: (1, 1), PERPENDICULAR: (1, 2), SHARE: (2, 1), CHANGE: (2, 2)}


def guidance_parts(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]]) -> go.Figure:
    """Parts of classifier-free guidance along t in some cells: means over samples, with 95 % intervals.

    The two norms share their axis. The classifier sets the colour, the stabiliser the dash, and guidance_scale the
    width of the line.

    Parameters
    ----------
    ds
        A store with the diagnostics of the probe `classifier_free`, or the scalars of one.
    cells
        Names of the cells; dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        The store has no such diagnostics or cell.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=4, timesteps=5)
    >>> parts = {"gradient_parallel_norm": 0.6, "gradient_perpendicular_norm": 0.8, "prediction_change": 0.1}
    >>> ds = ds.assign({name: factor * ds.gradient_norm for name, factor in parts.items()})
    >>> numbers = guidance_parts_numbers(ds, [{}])
    >>> numbers["mean"][numbers.quantity == "parallel_share"].round(3).unique().tolist()
    [0.6]
    >>> guidance_parts(ds, [{}]).layout.annotations[0].text
    'part along the conditional x0-hat, norm'
    """
    return draw_guidance_parts(guidance_parts_numbers(ds, cells))


def guidance_parts_numbers(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]]) -> pd.DataFrame:
    """Numbers of `guidance_parts`, with the same arguments: one row per cell, quantity and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``quantity``, one of `gradscope.analysis.classifier_free.QUANTITIES`; ``timestep``; ``mean`` over
        samples; ``low``, ``high``, its 95 % interval (Student's t); ``n``, the number of finite samples.
    """
    require(ds, *NEEDS)
    parts = []
    for cell in full_cells(ds, cells):
        for name in QUANTITIES:
            found = mean_interval(quantity(ds, name, cell))._asdict()
            parts.append(pd.DataFrame({**cell, "quantity": name, "timestep": ds["timestep"].values, **found}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {"coordinates": coordinates(ds)}
    return numbers


def draw_guidance_parts(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `guidance_parts_numbers`."""
    known = numbers.attrs["coordinates"]
    figure = make_subplots(
        2, 2, shared_xaxes="all", horizontal_spacing=0.07, vertical_spacing=0.13, subplot_titles=list(TITLES.values())
    )
    drawn = _on_log_axes(numbers)
    dims = list(known)
    groups = list(drawn.groupby(dims, sort=False))
    for key, rows in groups:
        cell = dict(zip(dims, key, strict=True))
        for name, (row, column) in _PLACES.items():
            part = rows[rows["quantity"] == name]
            colour = shade(look(known, cell).colour, 0.18)
            figure.add_trace(band(part, "low", "high", colour, cell_name(cell)), row=row, col=column)
    for key, rows in groups:
        cell = dict(zip(dims, key, strict=True))
        for name, (row, column) in _PLACES.items():
            part = rows[rows["quantity"] == name]
            whole = numbers.loc[part.index]  # before bands are cut off
            figure.add_trace(
                go.Scatter(
                    x=part["timestep"],
                    y=part["mean"].astype(np.float32),
                    name=escaped(cell_name(cell)),
                    legendgroup=cell_name(cell),
                    showlegend=name == PARALLEL,
                    customdata=whole[["low", "high", "n"]].astype(np.float32),
                    hovertemplate=_HOVER,
                    **line(known, cell),
                ),
                row=row,
                col=column,
            )
    for names in ((PARALLEL, PERPENDICULAR), (CHANGE,)):
        limits = _limits(drawn[drawn["quantity"].isin(names)])
        for row, column in map(_PLACES.__getitem__, names):
            figure.update_yaxes(type="log", exponentformat="power", range=limits, row=row, col=column)
    figure.update_yaxes(range=[0, 1.02], row=2, col=1)
    room = legend_above(figure, len(groups))
    figure = finish(along_t(figure, numbers["timestep"], row=2), 520 + room)
    return figure.update_layout(margin_t=room + 30)


def _limits(rows: pd.DataFrame) -> list[float] | None:
    """Limits of a logarithmic axis with all means and bands; None without any."""
    values = rows[["mean", "low", "high"]].to_numpy()
    known = values[np.isfinite(values) & (values > 0)]
    if not len(known):
        return None
    low, high = np.log10([known.min(), known.max()])
    room = 0.05 * max(high - low, 0.2)
    return [low - room, high + room]


def _on_log_axes(numbers: pd.DataFrame) -> pd.DataFrame:
    """What logarithmic axes can show: means above 0, and bands that do not reach far below the smallest mean."""
    drawn = numbers.copy()
    for name in (PARALLEL, PERPENDICULAR, CHANGE):
        at = drawn["quantity"] == name
        drawn.loc[at, "mean"] = drawn.loc[at, "mean"].where(drawn.loc[at, "mean"] > 0)
        smallest = drawn.loc[at, "mean"].min()
        drawn.loc[at, ["low", "high"]] = drawn.loc[at, ["low", "high"]].clip(lower=smallest / 10)
    return drawn
