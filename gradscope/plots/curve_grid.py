"""Diagnostics over timesteps: curves with bands, and a heat map of cells."""

from itertools import product

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import ArrayLike, NDArray
from plotly.subplots import make_subplots

from gradscope.analysis.stability import curves
from gradscope.plots.style import (
    DASHES,
    PALETTE,
    TIMESTEP,
    about,
    assigned,
    by_cell,
    cell_name,
    defined,
    finish,
    shade,
    text,
    thresholds,
)
from gradscope.store.dims import CELL_DIMS, cell_dims


def curve_numbers(ds: xr.Dataset, name: str) -> pd.DataFrame:
    """What `curve` and `heatmap` show: one row a cell and timestep, as `gradscope.stability.curves` computes it.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples with its 95 % interval ``low``, ``high``; ``q05`` and ``q95``, the
        quantiles of the samples; ``n``, the finite ones. ``attrs``: see `gradscope.plots.style.about`.

    Raises
    ------
    GradscopeError
        There is no such diagnostic in the store.
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
    numbers.attrs = about(ds, name)
    return numbers


def curve(ds: xr.Dataset, name: str) -> go.Figure:
    """A diagnostic's mean over samples along t, with its 95 % interval and the band of 90 % of the samples.

    The classifier is the colour, the stabiliser the dash; a column for each classifier_input, a row for each
    guidance_scale. Norms and strengths have a logarithmic axis.
    """
    return draw_curve(curve_numbers(ds, name))


def draw_curve(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `curve_numbers`."""
    name, numbers = numbers.attrs["name"], defined(numbers)
    told = numbers[["low", "high", "q05", "q95", "n"]]
    logarithmic = numbers.attrs["logarithmic"] and bool((numbers["mean"] > 0).any())
    if logarithmic:
        numbers, bottom = _drawable(numbers)
    inputs, scales = numbers["classifier_input"].unique(), numbers["guidance_scale"].unique()
    colours, dashes = assigned(numbers["classifier"], PALETTE), assigned(numbers["stabilizer"], DASHES)
    figure = make_subplots(
        len(scales),
        len(inputs),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.12 / len(scales),
        subplot_titles=[f"{text(kind)}, scale {scale:g}" for scale, kind in product(scales, inputs)],
    )
    shown = set()
    for cell, rows in by_cell(numbers):
        where = {
            "row": list(scales).index(cell["guidance_scale"]) + 1,
            "col": list(inputs).index(cell["classifier_input"]) + 1,
        }
        own = [f"{dim} {value}" for dim, value in cell.items() if dim not in CELL_DIMS]
        colour, line = colours[cell["classifier"]], ", ".join([cell["classifier"], cell["stabilizer"], *own])
        for ends, opacity in ((("q05", "q95"), 0.08), (("low", "high"), 0.25)):
            figure.add_trace(band(rows, *ends, shade(colour, opacity), line), **where)
        figure.add_trace(
            go.Scatter(
                x=rows["timestep"],
                y=rows["mean"],
                mode="lines",
                name=text(line),
                legendgroup=line,
                showlegend=line not in shown,
                line={"color": colour, "dash": dashes[cell["stabilizer"]], "width": 2},
                customdata=told.loc[rows.index],
                hovertemplate=(
                    "t = %{x}: %{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], 5 to 95 % of samples: "
                    "%{customdata[2]:.3g} to %{customdata[3]:.3g}, N = %{customdata[4]}"
                ),
            ),
            **where,
        )
        shown.add(line)
    thresholds(figure, name)
    figure.update_xaxes(autorange="reversed")
    figure.update_xaxes(title=TIMESTEP, row=len(scales))
    if logarithmic:
        top = np.log10(numbers[["mean", "high", "q95"]].max(axis=None))
        figure.update_yaxes(
            type="log", exponentformat="power", range=[np.log10(bottom), top + 0.05 * (top - np.log10(bottom))]
        )
    figure.update_yaxes(title=text(numbers.attrs["label"]), col=1)
    figure.update_layout(legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"})
    return finish(figure, 90 + 260 * len(scales)).update_layout(margin_t=60)


def heatmap(ds: xr.Dataset, name: str) -> go.Figure:
    """A diagnostic's mean over samples, one row a cell, along t; cosines around 0, norms and strengths as log10."""
    return draw_heatmap(curve_numbers(ds, name))


def draw_heatmap(numbers: pd.DataFrame) -> go.Figure:
    """Draw the means of `curve_numbers`."""
    name, title = numbers.attrs["name"], text(numbers.attrs["label"])
    parts = list(by_cell(numbers))
    values = np.stack([rows["mean"].to_numpy(dtype=np.float64) for _, rows in parts])
    scale: dict[str, object] = {"colorscale": "Cividis"}
    if name.endswith("_cosine"):
        scale = {"colorscale": "RdBu_r", "zmid": 0, "zmin": -1, "zmax": 1}
    elif numbers.attrs["logarithmic"]:
        title = f"log10 {title}"
        values = np.log10(values, out=np.full_like(values, np.nan), where=values > 0)
    timestep = parts[0][1]["timestep"]
    figure = go.Figure(
        go.Heatmap(
            x=[str(t) for t in timestep],
            y=[text(cell_name(cell)) for cell, _ in parts],
            z=values,
            colorbar={"title": {"text": title, "side": "right"}, "thickness": 14},
            hovertemplate="%{y}<br>t = %{x}: %{z:.3g}<extra></extra>",
            **scale,
        )
    )
    figure.update_xaxes(title=TIMESTEP, type="category", nticks=12)
    figure.update_yaxes(autorange="reversed")
    return finish(figure, 130 + 24 * len(parts))


def _drawable(numbers: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """What a logarithmic axis can show, and its lower end.

    Bands are cut off two orders of magnitude below the smallest mean: those of vanishing gradients, and of 0, would
    leave no room for the means. Guidance scales without any mean above 0 are left out.
    """
    numbers = numbers[(numbers["mean"] > 0).groupby(numbers["guidance_scale"]).transform("any")].copy()
    bands = ["low", "high", "q05", "q95"]
    numbers.loc[~(numbers["mean"] > 0), ["mean", *bands]] = np.nan
    smallest = numbers["mean"].min()
    bottom = max(1e-2 * smallest, min(numbers[bands].min(axis=None), smallest))
    numbers[bands] = numbers[bands].clip(lower=bottom)
    return numbers, bottom


def band(rows: pd.DataFrame, low: str, high: str, colour: str, line: str) -> go.Scatter:
    """A filled polygon for each run of timesteps that has both ends, between gaps."""
    x: list[ArrayLike] = [()]
    y: list[ArrayLike] = [()]
    for run in _runs(np.isfinite(rows[low]) & np.isfinite(rows[high])):
        part = rows.iloc[run]
        x += [part["timestep"], part["timestep"][::-1], [np.nan]]
        y += [part[high], part[low][::-1], [np.nan]]
    return go.Scatter(
        x=np.concatenate(x, dtype=np.float64),
        y=np.concatenate(y, dtype=np.float64),
        fill="toself",
        fillcolor=colour,
        line={"width": 0},
        legendgroup=line,
        showlegend=False,
        hoverinfo="skip",
        mode="lines",
    )


def _runs(flags: NDArray[np.bool_]) -> list[NDArray]:
    there = np.flatnonzero(flags)
    return np.split(there, np.flatnonzero(np.diff(there) > 1) + 1) if len(there) else []
