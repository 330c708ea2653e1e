"""Heat maps of a diagnostic over all cells and t: `heatmap` of scripts, `stability` of the dashboard."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import cells
from gradscope.analysis.findings import Finding
from gradscope.analysis.means import finite_mean
from gradscope.analysis.signatures import CURVES
from gradscope.plots.alarm_scale import alarm_scale
from gradscope.plots.cell_style import cell_number, coordinates
from gradscope.plots.curve_grid import curve_numbers
from gradscope.plots.figure_numbers import by_cell, cell_values, diagnostic_attrs, require_diagnostic, rows_to_draw
from gradscope.plots.layout import TIMESTEP, along_t, finish
from gradscope.plots.style import escaped
from gradscope.plots.unguided import Shown, folded

Span = Mapping[str, Any]
"""Timesteps of a cell that a finding flags: ``cell``, its names; ``first`` and ``last``, the timesteps; ``name``, the
signature."""


def heatmap(ds: xr.Dataset, name: str, flagged: Sequence[Span] = ()) -> go.Figure:
    """A diagnostic's mean over samples along t, one row per cell; unguided cells with the same means are one row.

    The colours span the range of the means. They are red on the failing side of the diagnostic's thresholds, and
    blue-grey on the other; the colour bar names the thresholds. Norms and strengths are shown as log10. Arguments and
    errors are those of `stability`.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> heatmap(synthetic.trajectories(samples=8), "gradient_norm").data[0].colorbar.title.text
    'log10 gradient_norm<br> '
    """
    numbers = curve_numbers(ds, name)
    numbers.attrs["flagged"] = list(flagged)
    return draw_heatmap(numbers)


def stability(ds: xr.Dataset, name: str, flagged: Sequence[Span] = ()) -> go.Figure:
    """A diagnostic's mean over samples along t, one row per cell; unguided cells with the same means are one row.

    The colours span the range of the means. They are red on the failing side of the diagnostic's thresholds, and
    blue-grey on the other; the colour bar names the thresholds. Norms and strengths are shown as log10. Rows are in the
    order of `gradscope.analysis.cells.cells`.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic over cells, sample and timestep.
    flagged
        Timesteps that findings flag; they are outlined. `flagged_spans` gives them.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> from gradscope.analysis.signatures import find
    >>> ds = synthetic.trajectories("white_noise")
    >>> figure = stability(ds, "gradient_lag_cosine", flagged_spans(find(ds), "gradient_lag_cosine"))
    >>> figure.data[0].z.shape, len(figure.layout.shapes)
    ((1, 27), 2)
    """
    return draw_stability(stability_numbers(ds, name, flagged))


def flagged_spans(findings: Iterable[Finding], name: str) -> list[Span]:
    """The timesteps that findings of a diagnostic's own signatures flag, for `heatmap` and `stability`.

    Parameters
    ----------
    findings
        As `gradscope.analysis.signatures.find` returns them. Those without timesteps are left out.
    name
        The diagnostic.
    """
    needed = {signature.name for signature in CURVES if name in signature.needs}
    return [
        {"cell": found.cell, "first": found.first_timestep, "last": found.last_timestep, "name": found.signature}
        for found in findings
        if found.signature in needed and found.first_timestep is not None
    ]


def stability_numbers(ds: xr.Dataset, name: str, flagged: Sequence[Span] = ()) -> pd.DataFrame:
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
    numbers.attrs = {**diagnostic_attrs(ds, name), "flagged": list(flagged), "coordinates": coordinates(ds)}
    return numbers


def draw_stability(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `stability_numbers`."""
    timestep = rows_to_draw(numbers)["timestep"].unique()
    figure = draw_heatmap(numbers).update_traces(x=timestep).update_xaxes(type="linear")
    ends = _bricks(timestep)
    for shape in figure.layout.shapes:
        shape.update(x0=ends[round(shape.x0 + 0.5)], x1=ends[round(shape.x1 + 0.5)])
    figure.update_yaxes(dtick=1, tickfont_size=10).update_layout(margin_t=10)  # name every row
    return along_t(figure, numbers["timestep"])


def _bricks(timestep: NDArray) -> NDArray[np.float64]:
    """Where plotly ends the cells of a heat map: half way between timesteps, and as far beyond the first and last."""
    if len(timestep) == 1:
        return np.asarray([timestep[0] + 0.5, timestep[0] - 0.5])
    middles = (timestep[1:] + timestep[:-1]) / 2
    return np.concatenate([[2 * timestep[0] - middles[0]], middles, [2 * timestep[-1] - middles[-1]]])


def draw_heatmap(numbers: pd.DataFrame) -> go.Figure:
    """Draw the means of `curve_numbers`."""
    name, title = numbers.attrs["name"], escaped(numbers.attrs["label"])
    parts = folded(by_cell(rows_to_draw(numbers)))
    values = np.stack([shown.rows["mean"].to_numpy(dtype=np.float64) for shown in parts])
    logarithmic = numbers.attrs["logarithmic"]
    if logarithmic:
        title = f"log10 {title}"
        values = np.log10(values, out=np.full_like(values, np.nan), where=values > 0)
    scale = alarm_scale(name, values, logarithmic)
    scale["colorbar"] |= {"title": {"text": f"{title}<br> ", "side": "top"}, "thickness": 14, "tickfont_size": 10}
    timestep = parts[0].rows["timestep"]
    known = numbers.attrs["coordinates"]
    figure = go.Figure(
        go.Heatmap(
            x=[str(t) for t in timestep],
            y=[escaped(shown.name) for shown in parts],
            z=values,
            hovertemplate="%{y}<br>t = %{x}: %{z:.3g}<extra></extra>",
            meta={"cells": [cell_number(known, shown.cell) for shown in parts]},
            **scale,
        )
    )
    figure.update_xaxes(title=TIMESTEP, type="category", nticks=12, showgrid=False)
    figure.update_yaxes(autorange="reversed", showgrid=False)
    _outline(figure, parts, timestep.tolist(), numbers.attrs.get("flagged", ()))
    return finish(figure, 130 + 24 * len(parts))


def _outline(figure: go.Figure, parts: Sequence[Shown], timestep: list[float], flagged: Sequence[Span]) -> None:
    """Outline flagged timesteps, white around black, which is visible on every colour. x: the number of the step."""
    rows = {frozenset(cell.items()): row for row, shown in enumerate(parts) for cell in shown.cells}
    for span in flagged:
        row = rows.get(frozenset(span["cell"].items()))
        if row is None or span["first"] not in timestep or span["last"] not in timestep:
            continue
        first, last = timestep.index(span["first"]), timestep.index(span["last"])
        for width, colour in ((4, "#FFFFFF"), (2, "#1A1A1A")):
            figure.add_shape(
                type="rect", x0=first - 0.5, x1=last + 0.5, y0=row - 0.5, y1=row + 0.5, name=span["name"],
                line={"width": width, "color": colour},
            )  # fmt: skip
