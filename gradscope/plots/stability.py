"""A diagnostic over all cells and t."""

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.contents import cells
from gradscope.plots.cells import along_t, diagnostic, finite_mean, values
from gradscope.plots.curve_grid import draw_heatmap
from gradscope.plots.style import about


def stability_numbers(ds: xr.Dataset, name: str) -> pd.DataFrame:
    """What `stability` shows: one row a cell and timestep.

    The means of `gradscope.plots.curve_grid.curve_numbers` without its intervals, which take a second and more.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples; ``n``, the finite ones.

    Raises
    ------
    GradscopeError
        There is no such diagnostic in the store.
    """
    diagnostic(ds, name)
    parts = []
    for cell in cells(ds):
        mean, n = finite_mean(values(ds, name, cell), axis=0)
        parts.append(pd.DataFrame({**cell, "timestep": ds["timestep"].values, "mean": mean, "n": n}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = about(ds, name)
    return numbers


def stability(ds: xr.Dataset, name: str) -> go.Figure:
    """A diagnostic's mean over samples, one row a cell, along t; cosines around 0, norms and strengths as log10.

    Rows are in the order of `gradscope.analysis.contents.cells`.
    """
    return draw_stability(stability_numbers(ds, name))


def draw_stability(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `stability_numbers`."""
    timestep = numbers["timestep"].unique()
    figure = draw_heatmap(numbers).update_traces(x=timestep).update_xaxes(type="linear")
    figure.update_yaxes(dtick=1, tickfont_size=10).update_layout(margin_t=10)  # a name for every row
    return along_t(figure, timestep)
