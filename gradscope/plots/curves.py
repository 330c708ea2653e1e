"""A diagnostic along t in some cells: means, bands over samples, and the line of one sample."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import cell_name
from gradscope.analysis.means import Floats, finite_mean
from gradscope.plots.bands import band, fit_to_log_axis, has_log_axis, set_log_axis
from gradscope.plots.cell_style import coordinates, line, look
from gradscope.plots.draft import Draft
from gradscope.plots.figure_numbers import (
    by_cell,
    cell_table,
    cell_values,
    diagnostic_attrs,
    full_cell,
    full_cells,
    require_diagnostic,
    rows_to_draw,
    sample_index,
    without_attrs,
)
from gradscope.plots.layout import along_t, finish, legend_above, nearest_curve, thresholds
from gradscope.plots.style import GREY, escaped, hovered, shade
from gradscope.plots.unguided import folded

QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}
_BANDS = {("q05", "q95"): 0.1, ("q25", "q75"): 0.22}
"""Columns of the ends of each band, and its opacity."""
_LEGIBLE = 3
"""Largest number of cells whose bands a reader can distinguish. With more cells, only the focused one has bands."""


def curves(
    ds: xr.Dataset,
    name: str,
    cells: Sequence[Mapping[str, str | float]],
    sample: int | None = None,
    focus: Mapping[str, str | float] | None = None,
) -> go.Figure:
    """A diagnostic along t in some cells: the mean over samples and, for few cells, bands of 50 % and 90 % of samples.

    The classifier sets the colour, the stabiliser the dash, classifier_input the marker, and guidance_scale the width
    of the line. Unguided cells with the same means are one line. Thresholds of signatures are named in the margin.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep.
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        A sample whose own values in the cell `focus` are drawn too.
    focus
        Names of that cell. It is drawn even if it is not among `cells`, and has bands however many cells there are.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic, cell or sample.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=8, timesteps=20)
    >>> [trace.name for trace in curves(ds, "log_prob", [{}]).data if trace.name]
    ['synthetic, x_t, no stabiliser, s = 0.3']
    """
    return draw_curves(curves_numbers(ds, name, cells, sample, focus))


def curves_numbers(
    ds: xr.Dataset,
    name: str,
    cells: Sequence[Mapping[str, str | float]],
    sample: int | None = None,
    focus: Mapping[str, str | float] | None = None,
) -> pd.DataFrame:
    """Numbers of `curves`, with the same arguments: one row per cell and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples; ``q05``, ``q25``, ``q75``, ``q95``, their quantiles; ``n``, the
        number of finite samples, from which these are computed; ``value``, that of `sample`, NaN outside the cell
        `focus`.
    """
    require_diagnostic(ds, name)
    focused = None if focus is None else full_cell(ds, focus)
    shown = full_cells(ds, cells if focused is None else [*cells, focused])
    numbers = cell_table(ds, shown, [summarised(cell_values(ds, name, cell)) for cell in shown])
    numbers.attrs = {**diagnostic_attrs(ds, name), "focus": focused, "coordinates": coordinates(ds)}
    return with_sample(numbers, ds, sample)


def with_sample(numbers: pd.DataFrame, ds: xr.Dataset, sample: int | None) -> pd.DataFrame:
    """The numbers of the same call of `curves_numbers` with another sample: only ``value`` differs."""
    about, steps = numbers.attrs, ds.sizes["timestep"]
    value, focus = np.full(len(numbers), np.nan), about["focus"]
    if sample is not None and focus is not None:
        heads = without_attrs(numbers)[list(focus)].iloc[::steps].to_dict("records")
        at = sample_index(ds, sample)
        value[heads.index(focus) * steps :][:steps] = cell_values(ds, about["name"], focus)[at]
    numbers = without_attrs(numbers).assign(value=value)
    numbers.attrs = {**about, "sample": sample}
    return numbers


def summarised(values: Floats) -> dict[str, NDArray]:
    """Mean, quantiles and number of the finite values over samples.

    The values are sorted once, because `numpy.nanquantile` takes seconds if some are missing.

    Parameters
    ----------
    values
        Shape ``(samples, timesteps)``.
    """
    mean, n = finite_mean(values, axis=0)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN last
    out: dict[str, NDArray] = {"mean": mean}
    for key, share in QUANTILES.items():
        at = share * np.maximum(n - 1, 0)
        below = np.floor(at).astype(int)
        low, high = (np.take_along_axis(ordered, k[None], axis=0)[0] for k in (below, np.ceil(at).astype(int)))
        out[key] = low + (at - below) * (high - low)
    return out | {"n": n}


def draw_curves(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `curves_numbers`."""
    return draft_curves(numbers).figure()


def draft_curves(numbers: pd.DataFrame) -> Draft:
    """`draw_curves`, before plotly checks it."""
    return draft_sample(draft_means(numbers), numbers)


class Means(NamedTuple):
    """What `curves` draws for all samples."""

    draft: Draft
    known: pd.DataFrame
    """The numbers that are drawn: cut off below `bottom` on a logarithmic axis."""
    bottom: float | None
    """Lower end of a logarithmic axis."""
    entries: int
    """Number of lines in the legend."""
    own: NDArray[np.bool_]
    """Rows of the focused cell; none without one."""

    def packed(self) -> "Means":
        """The same, for many figures of pages."""
        return self._replace(draft=self.draft.packed())


def draft_means(numbers: pd.DataFrame) -> Means:
    """Means and bands over samples, of which no part depends on the sample that is drawn with them."""
    about, numbers = numbers.attrs, rows_to_draw(numbers)
    known, focus, bottom = about["coordinates"], about["focus"], None
    logarithmic = has_log_axis(numbers)
    numbers = without_attrs(numbers)
    hover = numbers[["q05", "q95", "n"]]  # before bands are cut off
    if logarithmic:
        numbers, bottom = fit_to_log_axis(numbers, ["mean"], list(QUANTILES))
    figure = Draft()
    each = sorted(by_cell(numbers), key=lambda part: part[0] != focus)  # the focused one is the first of its fold
    parts = sorted(folded(each), key=lambda shown: shown.rows.index[0])
    focused = [shown for shown in parts if shown.cell == focus]
    for cell, rows, title, _ in parts if len(parts) <= _LEGIBLE else focused:
        for ends, opacity in _BANDS.items():
            figure.add_trace(band(rows, *ends, shade(look(known, cell).colour, opacity), title))
    for cell, rows, title, _ in parts:
        figure.add_trace(
            {
                "x": rows["timestep"].to_numpy(),
                "y": rows["mean"].to_numpy(np.float32),
                "name": escaped(title),
                "legendgroup": title,
                "customdata": hover.loc[rows.index].to_numpy(np.float32),
                "hovertemplate": (
                    f"<b>{hovered(title)}</b><br>t = %{{x}}: mean %{{y:.3g}}<br>"
                    "5 to 95 % of samples: %{customdata[0]:.3g} to %{customdata[1]:.3g}, N = %{customdata[2]}"
                    "<extra></extra>"
                ),
                **line(known, cell),
            }
        )
    nearest_curve(figure)
    figure.update_yaxes(title={"text": escaped(about["label"])})
    own = np.full(len(numbers), focus is not None)
    for dim, value in (focus or {}).items():
        own &= (numbers[dim] == value).to_numpy()
    return Means(figure, numbers, bottom, len(parts) + len(focused), own)


def draft_sample(means: Means, numbers: pd.DataFrame) -> Draft:
    """The figure of `numbers`: their means, which another sample does not change, and the line of their sample."""
    about, timestep, value = numbers.attrs, numbers["timestep"], rows_to_draw(numbers)["value"]
    name, focus, sample, logarithmic = about["name"], about["focus"], about["sample"], means.bottom is not None
    if logarithmic:
        value = value.where(value > 0)
    figure = means.draft.copy()
    if sample is not None and focus is not None:
        figure.add_trace(
            {
                "x": means.known["timestep"].to_numpy()[means.own],
                "y": value.to_numpy(np.float32)[means.own],
                "name": f"sample {sample} of {escaped(cell_name(focus))}",
                "mode": "lines",
                "line": {"color": GREY, "width": 1.25},
                "hovertemplate": f"<b>sample {sample}</b><br>t = %{{x}}: %{{y:.3g}}<extra></extra>",
            }
        )
    if means.known["mean"].isna().all():
        figure.add_annotation(text="no values", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    upper = means.known[["mean", "q95"] if logarithmic else ["mean"]].max(axis=None)
    top = np.fmax(upper, value.max())
    if means.bottom is not None:
        set_log_axis(figure, means.bottom, top, room_below=0.02)
    room = legend_above(figure, means.entries)
    finish(along_t(figure, timestep), 270 + room).update_layout(margin={"t": room + 26})
    low = np.fmin(means.known["mean"].min(), value.min()) if means.bottom is None else means.bottom
    thresholds(figure, name, low, top, logarithmic=logarithmic)
    return figure
