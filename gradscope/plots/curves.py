"""One diagnostic along t for some cells: means, bands over samples, and one sample's own line."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.plots.cells import (
    INK,
    Floats,
    along_t,
    chosen,
    coordinates,
    diagnostic,
    finite_mean,
    legend,
    line,
    look,
    named,
    row,
    values,
)
from gradscope.plots.curve_grid import band
from gradscope.plots.style import about, by_cell, cell_name, defined, finish, shade, text, thresholds

QUANTILES = {"q05": 0.05, "q25": 0.25, "q75": 0.75, "q95": 0.95}
_BANDS = {("q05", "q95"): 0.1, ("q25", "q75"): 0.22}
"""Ends and opacity."""
_LEGIBLE = 3
"""Cells whose bands can be told apart; of more, the focused one has them."""


def curves_numbers(
    ds: xr.Dataset,
    name: str,
    cells: Sequence[Mapping[str, str | float]],
    sample: int | None = None,
    focus: Mapping[str, str | float] | None = None,
) -> pd.DataFrame:
    """What `curves` shows: one row a cell and timestep.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep.
    cells
        Their names; dimensions of size one may be left out.
    sample, focus
        A sample whose own values are given in the cell `focus`, which is shown too.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; ``mean`` over samples, ``q05``, ``q25``, ``q75``, ``q95``, their quantiles; ``n``, the
        finite ones, of which alone the others are made; ``value``, that of `sample`, NaN outside the cell `focus`.

    Raises
    ------
    GradscopeError
        There is no such diagnostic, cell or sample in the store.
    """
    diagnostic(ds, name)
    focused = None if focus is None or sample is None else named(ds, focus)
    shown = chosen(ds, cells if focused is None else [*cells, focused])
    parts = []
    for cell in shown:
        found = values(ds, name, cell)
        own = found[row(ds, sample)] if sample is not None and cell == focused else np.full(found.shape[1], np.nan)
        parts.append(pd.DataFrame({**cell, "timestep": ds["timestep"].values, **summarised(found), "value": own}))
    numbers = pd.concat(parts, ignore_index=True)
    numbers.attrs = {
        **about(ds, name),
        "sample": sample,
        "focus": focused,
        "coordinates": coordinates(ds),
    }
    return numbers


def summarised(found: Floats) -> dict[str, NDArray]:
    """Mean, quantiles and number of the finite values along the first axis, ``(samples, timesteps)``.

    Sorted once, as `numpy.nanquantile` takes seconds where values are missing.
    """
    mean, n = finite_mean(found, axis=0)
    ordered = np.sort(np.where(np.isfinite(found), found, np.nan), axis=0)  # NaN last
    out: dict[str, NDArray] = {"mean": mean}
    for key, share in QUANTILES.items():
        at = share * np.maximum(n - 1, 0)
        below = np.floor(at).astype(int)
        low, high = (np.take_along_axis(ordered, k[None], axis=0)[0] for k in (below, np.ceil(at).astype(int)))
        out[key] = low + (at - below) * (high - low)
    return out | {"n": n}


def curves(
    ds: xr.Dataset,
    name: str,
    cells: Sequence[Mapping[str, str | float]],
    sample: int | None = None,
    focus: Mapping[str, str | float] | None = None,
) -> go.Figure:
    """A diagnostic along t: the mean over samples of some cells and, of few cells, where 50 % and 90 % of samples are.

    The classifier is the colour, the stabiliser the dash, classifier_input the marker, and a larger guidance_scale a
    thicker line. See `curves_numbers` for the arguments.
    """
    return draw_curves(curves_numbers(ds, name, cells, sample, focus))


def draw_curves(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `curves_numbers`."""
    known, name, timestep = numbers.attrs["coordinates"], numbers.attrs["name"], numbers["timestep"]
    numbers = defined(numbers)
    told = numbers[["q05", "q95", "n"]]
    logarithmic = numbers.attrs["logarithmic"] and bool((numbers["mean"] > 0).any())
    bottom = -np.inf
    if logarithmic:
        numbers, bottom = _drawable(numbers)
    figure = go.Figure()
    parts = list(by_cell(numbers))
    focused = [(cell, rows) for cell, rows in parts if cell == numbers.attrs["focus"]]
    for cell, rows in parts if len(parts) <= _LEGIBLE else focused:
        for ends, opacity in _BANDS.items():
            figure.add_trace(band(rows, *ends, shade(look(known, cell).colour, opacity), cell_name(cell)))
    for cell, rows in parts:
        figure.add_trace(
            go.Scatter(
                x=rows["timestep"],
                y=rows["mean"].astype(np.float32),
                name=text(cell_name(cell)),
                legendgroup=cell_name(cell),
                customdata=told.loc[rows.index].astype(np.float32),
                hovertemplate="%{y:.3g} [%{customdata[0]:.3g}, %{customdata[1]:.3g}], N = %{customdata[2]}",
                **line(known, cell),
            )
        )
    for cell, rows in focused:
        figure.add_trace(
            go.Scatter(
                x=rows["timestep"],
                y=rows["value"].astype(np.float32),
                name=f"sample {numbers.attrs['sample']} of {text(cell_name(cell))}",
                mode="lines",
                line={"color": INK, "width": 1.25},
                hovertemplate="%{y:.3g}",
            )
        )
    thresholds(figure, name)
    if numbers["mean"].isna().all():
        figure.add_annotation(text="no values", x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False)
    figure.update_layout(hovermode="x unified")
    figure.update_yaxes(title=text(numbers.attrs["label"]))
    if logarithmic:
        figure.update_yaxes(type="log", exponentformat="power", range=_range(numbers, bottom))
    room = legend(figure, len(parts) + len(focused))
    return finish(along_t(figure, timestep), 270 + room).update_layout(margin_t=room + 14)


def _drawable(numbers: pd.DataFrame) -> tuple[pd.DataFrame, float]:
    """What a logarithmic axis can show, and its lower end: 0 and vanishing values would leave no room for the rest."""
    numbers = numbers.copy()
    shown = numbers[["mean", "value"]]
    numbers[["mean", "value"]] = shown.where(shown > 0)
    smallest = numbers["mean"].min()
    bottom = max(1e-2 * smallest, min(numbers["q05"].min(), smallest))
    numbers[list(QUANTILES)] = numbers[list(QUANTILES)].clip(lower=bottom)
    return numbers, bottom


def _range(numbers: pd.DataFrame, bottom: float) -> list[float]:
    low, high = np.log10([bottom, numbers[["mean", "q95", "value"]].max(axis=None)])
    return [low - 0.02 * (high - low), high + 0.05 * (high - low)]
