"""How large the gradient's elements are, along t."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from plotly.subplots import make_subplots

from gradscope.plots.cells import INK, along_t, headline, named
from gradscope.plots.style import PALETTE, cell_name, finish, shade, text
from gradscope.plots.tensors import stored_gradient

_WIDTH = 0.2
"""Of a bin of log10 |element|."""
_SCALE = [(0, shade(PALETTE[0], 0.12)), (0.4, shade(PALETTE[0], 0.9)), (1, PALETTE[4])]
"""Rare values let the page through."""
_SPECIAL = {"zero": ("exactly 0", PALETTE[0], "solid"), "not_finite": ("not finite", PALETTE[1], "dash")}


def magnitudes_numbers(
    ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25
) -> pd.DataFrame:
    """What `magnitudes` shows: one row a timestep and bin of magnitude.

    Parameters
    ----------
    ds
        A store with gradients.
    cell
        Its names; dimensions of size one may be left out.
    samples, timesteps
        At most so many.

    Returns
    -------
    pandas.DataFrame
        ``timestep``; ``log10_magnitude``, the middle of the bin of log10 of an element's absolute value; ``share`` of
        the elements there; and of the timestep: the shares of elements that are exactly ``zero`` and ``not_finite``,
        and the ``median`` of log10 of the others. All shares of a timestep add up to 1. ``attrs["source"]``: what it is
        made of.

    Raises
    ------
    GradscopeError
        There is no such cell, or no gradients of it.
    """
    full = named(ds, cell)
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


def magnitudes(ds: xr.Dataset, cell: Mapping[str, str | float], samples: int = 16, timesteps: int = 25) -> go.Figure:
    """Histogram of log10 |element| of one cell's gradient along t, with the shares that are 0 and not finite.

    See `magnitudes_numbers` for the arguments.
    """
    return draw_magnitudes(magnitudes_numbers(ds, cell, samples, timesteps))


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
            x=timestep, y=steps["median"], mode="lines", name="median of the others", line={"color": INK, "width": 2},
            hovertemplate="t = %{x}: 10^%{y:.2f}",
        ),
        row=2, col=1,
    )  # fmt: skip
    headline(figure, f"{text(numbers.attrs['cell'])}: {numbers.attrs['source']}")
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font_size": 11})
    figure.update_yaxes(rangemode="tozero", tickformat="~%", nticks=3, row=1)  # the legend says of what
    figure.update_yaxes(title="log10 |element|", row=2)
    return finish(along_t(figure, timestep, row=2), 400).update_layout(margin_t=80)
