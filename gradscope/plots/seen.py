"""What hooks saw of a watched loop: the share of samples with a gradient, an update, a shift, x0-hat, along t."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.seen import FIELDS, seen
from gradscope.plots.figure_numbers import full_cell
from gradscope.plots.layout import along_t, finish, title_line
from gradscope.plots.style import escaped

NEEDS = ("written", *(name for names in FIELDS.values() for name in names))
"""Variables along t that the figure reads, as far as the store has them."""
_COLOURS = ((0.0, "#d9d9d9"), (1.0, "#0072B2"))
"""Grey: not seen; blue: seen."""


def what_was_seen(ds: xr.Dataset, cell: Mapping[str, str | float]) -> go.Figure:
    """What hooks saw of one cell of a watched loop: a row for each of gradient, update, shift and x0-hat, along t.

    Parameters
    ----------
    ds
        A store of a watched loop, or the scalars of one.
    cell
        Names of the cell; dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        There is no such cell.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> list(what_was_seen(synthetic.trajectories(samples=4), {}).data[0].y)
    ['gradient', 'update', 'shift', 'x0-hat', 'target classes']
    """
    return draw_what_was_seen(what_was_seen_numbers(ds, cell))


def what_was_seen_numbers(ds: xr.Dataset, cell: Mapping[str, str | float]) -> pd.DataFrame:
    """Numbers of `what_was_seen`, with the same arguments: a row for each field and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``field``; ``timestep``; ``seen``, the number of samples in which it was seen, of ``samples``.
    """
    full = full_cell(ds, cell)
    parts = [
        pd.DataFrame(
            {
                **full,
                "field": name,
                "timestep": ds["timestep"].values,
                "seen": values.transpose("sample", "timestep").values.sum(axis=0),
                "samples": ds.sizes["sample"],
            }
        )
        for name, values in seen(ds).isel(place(ds, full)).data_vars.items()
    ]
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {"cell": cell_name(full)}
    return numbers


def draw_what_was_seen(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `what_was_seen_numbers`."""
    groups = list(numbers.groupby("field", sort=False))
    timestep = groups[0][1]["timestep"]
    counts = np.stack([rows["seen"] for _, rows in groups])
    samples = np.stack([rows["samples"] for _, rows in groups])
    figure = go.Figure(
        go.Heatmap(
            x=timestep,
            y=[str(name) for name, _ in groups],
            z=counts / samples,
            customdata=np.stack([counts, samples], axis=-1),
            zmin=0,
            zmax=1,
            colorscale=[list(stop) for stop in _COLOURS],
            colorbar={"title": {"text": "share of samples", "side": "right"}, "thickness": 14},
            ygap=2,
            hovertemplate="%{y}, t = %{x}: %{customdata[0]} of %{customdata[1]} samples<extra></extra>",
        )
    )
    figure.update_yaxes(autorange="reversed", showgrid=False)
    figure.update_xaxes(showgrid=False, zeroline=False)
    title_line(figure, escaped(numbers.attrs["cell"]))
    return finish(along_t(figure, timestep), 110 + 26 * len(groups)).update_layout(margin_t=30)
