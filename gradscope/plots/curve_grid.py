"""A diagnostic along t in all cells: a grid of curves with bands."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from gradscope.analysis.cells import cell_name, name_along
from gradscope.analysis.stability import curves
from gradscope.plots.bands import band, fit_to_log_axis, has_log_axis, set_log_axis
from gradscope.plots.cell_style import coordinates, look
from gradscope.plots.figure_numbers import by_cell, diagnostic_attrs, rows_to_draw
from gradscope.plots.layout import TIMESTEP, finish, nearest_curve, thresholds
from gradscope.plots.style import escaped, hovered, shade
from gradscope.plots.unguided import folded, shared
from gradscope.store.dims import cell_dims

_BANDS = {("q05", "q95"): 0.08, ("low", "high"): 0.25}
"""Columns of the ends of each band, and its opacity."""


def curve(ds: xr.Dataset, name: str) -> go.Figure:
    """A diagnostic's mean over samples along t, with its 95 % interval and the band of 90 % of the samples.

    The classifier sets the colour and the stabiliser the dash. There is a column of panels for each classifier_input
    and a row for each guidance_scale. Unguided cells with the same means are one curve. Norms and strengths have a
    logarithmic axis. Thresholds of signatures are named in the margin.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories("exploding", samples=8)
    >>> curve(ds, "gradient_norm").layout.yaxis.type
    'log'
    """
    return draw_curve(curve_numbers(ds, name))


def curve_numbers(ds: xr.Dataset, name: str) -> pd.DataFrame:
    """Numbers of `curve` and `heatmap`, with the same arguments: one row per cell and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples with its 95 % interval ``low``, ``high``; ``q05`` and ``q95``,
        quantiles of the samples; ``n``, the number of finite samples. All are those of `gradscope.stability.curves`.
        ``attrs``: see `gradscope.plots.figure_numbers.diagnostic_attrs`.
    """
    found = curves(ds, [name])
    columns = {
        "mean": found[name],
        "low": found[f"{name}_interval"].sel(bound="low", drop=True),
        "high": found[f"{name}_interval"].sel(bound="high", drop=True),
        "q05": found[f"{name}_quantile"].sel(quantile=0.05, drop=True),
        "q95": found[f"{name}_quantile"].sel(quantile=0.95, drop=True),
        "n": found[f"{name}_n"],
    }
    order = [*cell_dims(ds), "timestep"]
    table = xr.Dataset({key: values.reset_coords(drop=True) for key, values in columns.items()})
    numbers = table.to_dataframe(dim_order=order).reset_index()[[*order, *columns]]
    numbers.attrs = {**diagnostic_attrs(ds, name), "coordinates": coordinates(ds)}
    return numbers


def draw_curve(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `curve_numbers`."""
    name, numbers = numbers.attrs["name"], rows_to_draw(numbers)
    hover = numbers[["low", "high", "q05", "q95", "n"]]  # before bands are cut off
    logarithmic = has_log_axis(numbers)
    if logarithmic:
        numbers, bottom = _on_log_axis(numbers)
    inputs, scales = numbers["classifier_input"].unique(), numbers["guidance_scale"].unique()
    known = numbers.attrs["coordinates"]
    figure = make_subplots(
        len(scales),
        len(inputs),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.12 / len(scales),
        subplot_titles=[
            f"{escaped(kind)}, {name_along('guidance_scale', scale)}" for scale, kind in product(scales, inputs)
        ],
    )
    seen = set()
    panels = [(scale, kind) for scale in scales for kind in inputs]
    for scale, kind in panels:
        where = {"row": list(scales).index(scale) + 1, "col": list(inputs).index(kind) + 1}
        here = numbers[(numbers["guidance_scale"] == scale) & (numbers["classifier_input"] == kind)]
        for cell, rows, _, cells in folded(by_cell(here)) if len(here) else []:
            of = {dim: name for dim, name in shared(cells).items() if dim not in ("classifier_input", "guidance_scale")}
            line = cell_name(of | ({"guidance_scale": scale} if len(cells) > 1 else {}))
            colour, dash, *_ = look(known, cell)
            for ends, opacity in _BANDS.items():
                figure.add_trace(band(rows, *ends, shade(colour, opacity), line), **where)
            curve = go.Scatter(
                x=rows["timestep"],
                y=rows["mean"],
                mode="lines",
                name=escaped(line),
                legendgroup=line,
                showlegend=line not in seen,
                line={"color": colour, "dash": dash, "width": 2},
                customdata=hover.loc[rows.index],
                hovertemplate=(
                    f"<b>{hovered(line)}</b><br>t = %{{x}}: %{{y:.3g}} [%{{customdata[0]:.3g}}, %{{customdata[1]:.3g}}]"
                    "<br>5 to 95 % of samples: %{customdata[2]:.3g} to %{customdata[3]:.3g}, N = %{customdata[4]}"
                    "<extra></extra>"
                ),
            )
            figure.add_trace(curve, **where)
            seen.add(line)
    figure.update_xaxes(autorange="reversed")
    figure.update_xaxes(title=TIMESTEP, row=len(scales))
    low, high = numbers["mean"].min(), numbers["mean"].max()
    if logarithmic:
        low, high = bottom, numbers[["mean", "high", "q95"]].max(axis=None)
        set_log_axis(figure, low, high)
    nearest_curve(figure)
    figure.update_yaxes(title=escaped(numbers.attrs["label"]), col=1)
    figure.update_layout(legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"})
    finish(figure, 90 + 260 * len(scales)).update_layout(margin_t=60)
    axes = [f"y{k * len(inputs) + 1}" if k else "y" for k in range(len(scales))]
    thresholds(figure, name, low, high, axes, logarithmic)
    return figure


def _on_log_axis(numbers: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """What a logarithmic axis can show, and its lower end; guidance scales without any mean above 0 are left out."""
    numbers = numbers[(numbers["mean"] > 0).groupby(numbers["guidance_scale"]).transform("any")].copy()
    bands = [column for ends in _BANDS for column in ends]
    numbers.loc[~(numbers["mean"] > 0), bands] = np.nan
    return fit_to_log_axis(numbers, ["mean"], bands)
