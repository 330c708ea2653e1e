"""A score of a leaderboard along t, and its table as a figure's numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.oracle import ROW, leaderboard_table
from gradscope.analysis.oracle_variables import VARIABLES, check
from gradscope.errors import GradscopeError, one_of
from gradscope.plots.bands import band
from gradscope.plots.layout import along_t, finish, legend_above
from gradscope.plots.style import DASHES, GREY, PALETTE, assigned, escaped, shade

SCORES = tuple(name for name in VARIABLES if f"{name}_interval" in VARIABLES and "timestep" in VARIABLES[name].dims)
"""Scores along t."""
MOST = 6
"""Rows whose curves can be distinguished."""
Row = Mapping[str, str]


def row_name(row: Row) -> str:
    """A row in words.

    Examples
    --------
    >>> row_name({"guide": "clean", "guidance_method": "classifier@x_t", "stabilizer": "adam"})
    'clean, classifier@x_t, adam'
    """
    return ", ".join(row[dim] for dim in ROW)


def oracle_curves(
    ds: xr.Dataset, name: str, rows: Sequence[Row], mixture: str | None = None, path: str = "control"
) -> go.Figure:
    """A score of some rows of a leaderboard along t, with its 95 % interval over samples.

    The guide sets the colour, the method the width and the stabiliser the dash.

    Parameters
    ----------
    ds
        Of `gradscope.analysis.oracle.open_leaderboard`.
    name
        One of `SCORES`.
    rows
        Guide, guidance_method and stabilizer of each row, at most 6.
    mixture
        Name of one mixture; None for the mean over all, without intervals for norm ratios.
    path
        ``control`` or ``guided``; bias and variance are of the control.

    Raises
    ------
    GradscopeError
        The leaderboard has no such score, row, mixture or path, or there are too many rows.

    Examples
    --------
    >>> from gradscope.analysis.oracle import open_leaderboard
    >>> row = {"guide": "clean", "guidance_method": "classifier@x_t", "stabilizer": "none"}
    >>> figure = oracle_curves(open_leaderboard("oracle.zarr"), "update_cosine", [row])
    >>> figure.data[-1].name
    'clean, classifier@x_t, none'
    """
    return draw_oracle_curves(oracle_curves_numbers(ds, name, rows, mixture, path))


def oracle_curves_numbers(
    ds: xr.Dataset, name: str, rows: Sequence[Row], mixture: str | None = None, path: str = "control"
) -> pd.DataFrame:
    """Numbers of `oracle_curves`, with the same arguments: one row per row of the leaderboard and timestep.

    Returns
    -------
    pandas.DataFrame
        The row; ``timestep``; ``mean``; ``low`` and ``high``, ends of the interval. Over several mixtures the mean's
        half width is the root of the sum of squares of theirs, divided by their number.
    """
    check(ds, "leaderboard")
    if name not in SCORES:
        raise GradscopeError(f"name: got {name!r:.80}; {one_of(name, SCORES)}")
    if not 1 <= len(rows) <= MOST:
        raise GradscopeError(f"rows: from 1 to {MOST} rows are drawn, got {len(rows)}")
    places = ds if mixture is None else _chosen(ds, "mixture", mixture)
    if "path" in ds[name].dims:
        places = _chosen(places, "path", path).isel(path=0)
    parts = []
    for row in rows:
        if set(row) != set(ROW):
            raise GradscopeError(f"rows: each names {', '.join(ROW)}; got {', '.join(map(str, row))}")
        cell = places
        for dim in ROW:
            cell = _chosen(cell, dim, row[dim]).isel({dim: 0})
        mean = cell[name].mean("mixture")
        ends = cell[f"{name}_interval"]
        half = (ends.sel(bound="high") - ends.sel(bound="low")).astype(float) / 2
        spread = np.sqrt((half**2).sum("mixture", skipna=False)) / cell.sizes["mixture"]
        alone = cell.sizes["mixture"] == 1
        low = ends.sel(bound="low").isel(mixture=0) if alone else mean - spread
        high = ends.sel(bound="high").isel(mixture=0) if alone else mean + spread
        parts.append(
            pd.DataFrame(
                {
                    **row,
                    "timestep": ds["timestep"].values,
                    "mean": mean.values.astype(float),
                    "low": low.values.astype(float),
                    "high": high.values.astype(float),
                }
            )
        )
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {
        "name": name,
        "label": ds[name].attrs.get("long_name", name),
        "mixture": mixture or "mean over mixtures",
        "path": path,
    }
    return numbers


def draw_oracle_curves(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `oracle_curves_numbers`."""
    name = numbers.attrs["name"]
    colours = assigned(numbers["guide"], PALETTE)
    dashes = assigned(numbers["stabilizer"], DASHES)
    widths = {method: 1.5 + 1.5 * i for i, method in enumerate(dict.fromkeys(numbers["guidance_method"]))}
    figure = go.Figure()
    groups = [(dict(zip(ROW, key, strict=True)), part) for key, part in numbers.groupby(list(ROW), sort=False)]
    for row, part in groups:
        figure.add_trace(band(part, "low", "high", shade(colours[row["guide"]], 0.15), row_name(row)))
    for row, part in groups:
        figure.add_trace(
            go.Scatter(
                x=part["timestep"],
                y=part["mean"].astype(np.float32),
                name=escaped(row_name(row)),
                legendgroup=row_name(row),
                mode="lines",
                line={
                    "color": colours[row["guide"]],
                    "dash": dashes[row["stabilizer"]],
                    "width": widths[row["guidance_method"]],
                },
                customdata=part[["low", "high"]].astype(np.float32),
                hovertemplate="%{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}]",
            )
        )
    if name.endswith("norm_ratio"):
        figure.update_yaxes(type="log", exponentformat="power")
    elif name.endswith("cosine"):
        figure.add_hline(y=0, line={"color": GREY, "dash": "dot", "width": 1.25})
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(title=escaped(name))
    room = legend_above(figure, len(groups))
    return finish(along_t(figure, numbers["timestep"]), 300 + room).update_layout(margin_t=room + 14)


def oracle_table_numbers(ds: xr.Dataset, mixture: str | None = None) -> pd.DataFrame:
    """The table of a leaderboard, see `gradscope.analysis.oracle.leaderboard_table`."""
    return leaderboard_table(check(ds, "leaderboard"), mixture)


def oracle_table(ds: xr.Dataset, mixture: str | None = None) -> go.Figure:
    """The best rows of a leaderboard: cosine of the update with the exact gradient, and its interval.

    Parameters
    ----------
    ds
        Of `gradscope.analysis.oracle.open_leaderboard`.
    mixture
        Name of one mixture; None for the mean over all.

    Raises
    ------
    GradscopeError
        There is no such mixture.

    Examples
    --------
    >>> from gradscope.analysis.oracle import open_leaderboard
    >>> len(oracle_table(open_leaderboard("oracle.zarr")).data[0].x)
    8
    """
    return draw_oracle_table(oracle_table_numbers(ds, mixture))


def draw_oracle_table(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `oracle_table_numbers`, the first 40 rows."""
    best = numbers.head(40)[::-1]
    colours = assigned(numbers["guide"], PALETTE)
    names = [row_name(row) for row in best[list(ROW)].to_dict("records")]
    figure = go.Figure(
        go.Scatter(
            x=best["update_cosine"],
            y=[escaped(name) for name in names],
            mode="markers",
            marker={"color": [colours[guide] for guide in best["guide"]], "size": 8},
            error_x={
                "array": best["update_cosine_high"] - best["update_cosine"],
                "arrayminus": best["update_cosine"] - best["update_cosine_low"],
                "color": GREY,
            },
            hovertemplate="%{y}: %{x:.3f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="cosine of the update with the exact gradient, at the x_t of the control")
    return finish(figure, 80 + 18 * len(best)).update_layout(margin_t=14)


def _chosen(ds: xr.Dataset, dim: str, name: str) -> xr.Dataset:
    """The dataset with one value of a dimension, which stays."""
    known = ds[dim].values.tolist()
    if name not in known:
        raise GradscopeError(f"{dim}: got {name!r:.80}; {one_of(name, known)}")
    return ds.isel({dim: [known.index(name)]})
