"""The magnitudes of the gradient's elements along t."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from gradscope.analysis.cells import cell_name
from gradscope.plots.figure_numbers import full_cell
from gradscope.plots.layout import along_t, finish, title_line
from gradscope.plots.stored_gradient import stored_gradient
from gradscope.plots.style import GREY, PALETTE, escaped, shade

_WIDTH = 0.2
"""Width of a bin of log10 |element|."""
_SCALE = [(0, shade(PALETTE[0], 0.12)), (0.4, shade(PALETTE[0], 0.9)), (1, PALETTE[3])]
"""Colours by share; rare values are nearly transparent."""
_SPECIAL = {"zero": ("exactly 0", PALETTE[0], "solid"), "not_finite": ("not finite", PALETTE[1], "dash")}
"""Name, colour and dash of the elements that have no logarithm."""


def magnitudes(ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25) -> go.Figure:
    """Histogram of log10 |element| of one cell's gradient along t, with the shares that are 0 and not finite.

    Parameters
    ----------
    ds
        A store with gradients.
    cell
        Names of the cell; dimensions of size one may be left out.
    samples, timesteps
        Largest number of samples and of timesteps to read.

    Raises
    ------
    GradscopeError
        There is no such cell, or it has no gradients.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> figure = magnitudes(synthetic.trajectories("clipped", samples=4, timesteps=10), {})
    >>> figure.data[0].name.startswith("exactly 0: up to 98")
    True
    """
    return draw_magnitudes(magnitudes_numbers(ds, cell, samples, timesteps))


def magnitudes_numbers(
    ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25
) -> pd.DataFrame:
    """Numbers of `magnitudes`, with the same arguments: one row per timestep and bin of magnitude.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``log10_magnitude``, the middle of the bin of log10 of an element's absolute value; ``share`` of
        the elements in it; for the timestep, the shares of elements that are exactly ``zero`` and ``not_finite``, and
        the ``median`` of log10 of the other elements. All shares of a timestep add up to 1. ``attrs["source"]``: which
        samples and timesteps were read.
    """
    full = full_cell(ds, cell)
    stored = stored_gradient(ds, cell, samples, timesteps)
    found = []
    for _, gradient in stored.read():
        size = np.abs(gradient[np.isfinite(gradient) & (gradient != 0)])
        found.append(
            {
                "bins": np.unique(np.floor(np.log10(size) / _WIDTH).astype(int), return_counts=True),
                "zero": (gradient == 0).mean(),
                "not_finite": (~np.isfinite(gradient)).mean(),
                "median": np.median(np.log10(size)) if len(size) else np.nan,
                "elements": gradient.size,
            }
        )
    occupied = np.concatenate([step["bins"][0] for step in found])
    first, last = (occupied.min(), occupied.max()) if len(occupied) else (0, 0)
    parts = []
    for timestep, step in zip(stored.timestep, found, strict=True):
        share = np.zeros(last - first + 1)
        bins, counts = step.pop("bins")
        share[bins - first] = counts / step.pop("elements")
        centres = (np.arange(first, last + 1) + 0.5) * _WIDTH
        parts.append(pd.DataFrame({"timestep": timestep, "log10_magnitude": centres, "share": share, **step}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {"cell": cell_name(full), "source": str(stored)}
    return numbers


def draw_magnitudes(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `magnitudes_numbers`."""
    steps = numbers.groupby("timestep", sort=False).first()
    timestep = steps.index.to_numpy()
    share = numbers["share"].to_numpy().reshape(len(timestep), -1).T
    figure = make_subplots(2, 1, shared_xaxes=True, row_heights=[0.22, 0.78], vertical_spacing=0.05)
    for column, (name, colour, dash) in _SPECIAL.items():
        figure.add_trace(
            go.Scatter(
                x=timestep, y=steps[column], mode="lines", name=f"{name}: up to {steps[column].max():.2%}",
                line={"color": colour, "dash": dash, "width": 2}, hovertemplate="t = %{x}: %{y:.3%}",
            ),
            row=1, col=1,
        )  # fmt: skip
    figure.add_trace(
        go.Heatmap(
            x=timestep,
            y=numbers["log10_magnitude"].unique(),
            z=np.where(share > 0, share, np.nan),
            zmin=0,
            colorscale=_SCALE,
            colorbar={
                "title": {"text": "share of elements", "side": "right"}, "thickness": 14, "y": 0, "yanchor": "bottom",
                "len": 0.78,
            },
            hovertemplate="t = %{x}, |element| about 10^%{y:.1f}: %{z:.2%}<extra></extra>",
            hoverongaps=False,
        ),
        row=2, col=1,
    )  # fmt: skip
    figure.add_trace(
        go.Scatter(
            x=timestep, y=steps["median"], mode="lines", name="median of the others", line={"color": GREY, "width": 2},
            hovertemplate="t = %{x}: 10^%{y:.2f}",
        ),
        row=2, col=1,
    )  # fmt: skip
    title_line(figure, f"{escaped(numbers.attrs['cell'])}: {numbers.attrs['source']}")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font_size": 11})
    figure.update_yaxes(rangemode="tozero", tickformat="~%", nticks=3, row=1)  # the legend names the shares
    figure.update_yaxes(title="log10 |element|", row=2)
    return finish(along_t(figure, timestep, row=2), 400).update_layout(margin_t=80)
