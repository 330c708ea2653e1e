"""A heat map of a diagnostic over all cells and t."""

import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cells
from gradscope.analysis.means import finite_mean
from gradscope.plots.curve_grid import draw_heatmap
from gradscope.plots.figure_numbers import cell_values, diagnostic_attrs, require_diagnostic
from gradscope.plots.layout import along_t


def stability(ds: xr.Dataset, name: str) -> go.Figure:
    """A diagnostic's mean over samples along t, one row per cell.

    The colours of cosines are centred at 0; norms and strengths are shown as log10. Rows are in the order of
    `gradscope.analysis.cells.cells`.

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
    >>> figure = stability(synthetic.trajectories(samples=8), "gradient_cosine")
    >>> figure.data[0].z.shape, figure.data[0].zmid
    ((1, 50), 0)
    """
    return draw_stability(stability_numbers(ds, name))


def stability_numbers(ds: xr.Dataset, name: str) -> pd.DataFrame:
    """Numbers of `stability`, with the same arguments: one row per cell and timestep.

    `gradscope.plots.curve_grid.curve_numbers` has the same means, but its intervals take a second or more.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples; ``n``, the number of finite samples.
    """
    require_diagnostic(ds, name)
    parts = []
    for cell in cells(ds):
        mean, n = finite_mean(cell_values(ds, name, cell), axis=0)
        parts.append(pd.DataFrame({**cell, "timestep": ds["timestep"].values, "mean": mean, "n": n}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = diagnostic_attrs(ds, name)
    return numbers


def draw_stability(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `stability_numbers`."""
    timestep = numbers["timestep"].unique()
    figure = draw_heatmap(numbers).update_traces(x=timestep).update_xaxes(type="linear")
    figure.update_yaxes(dtick=1, tickfont_size=10).update_layout(margin_t=10)  # name every row
    return along_t(figure, timestep)
