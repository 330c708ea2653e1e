"""All diagnostics of a comparison on one axis."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.comparison import compare
from gradscope.plots.cells import INK
from gradscope.plots.paired import DIFFERENCE, Pair, head, names, quantity
from gradscope.plots.style import finish, text


def forest_numbers(ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float]) -> pd.DataFrame:
    """What `forest` shows: one row a diagnostic.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    a, b
        Names of the two cells; dimensions of size one may be left out.

    Returns
    -------
    pandas.DataFrame
        `gradscope.analysis.Comparison.scalars` (``estimate`` of b − a with ``low``, ``high``, in the diagnostic's
        unit), and ``d``, ``d_low``, ``d_high``: the same divided by the samples' standard deviation of the difference
        (Cohen's d of paired samples), NaN where no sample differs. ``attrs["samples"]``: those finished in both cells.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same.
    """
    pair, found = Pair(ds, a, b), compare(ds, a, b)
    apart = [pair.trajectories(quantity(ds, title)).difference for title in found.scalars["diagnostic"]]
    spread = np.array([np.nanstd(x, ddof=1) if np.isfinite(x).sum() > 1 else np.nan for x in apart])
    unit = np.where(spread > 0, spread, np.nan)
    numbers = found.scalars.assign(
        d=found.scalars["estimate"] / unit, d_low=found.scalars["low"] / unit, d_high=found.scalars["high"] / unit
    )
    numbers.attrs = {**names(pair), "samples": found.samples}
    return numbers


def forest(ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float]) -> go.Figure:
    """Every diagnostic's change from cell a to cell b, in standard deviations of the paired differences.

    On the right: the change in its own unit with its 95 % interval, and Holm's p. Filled where that is at most 0.05.
    """
    return draw_forest(forest_numbers(ds, a, b))


def draw_forest(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `forest_numbers`."""
    about = numbers.attrs
    rows = [text(name) for name in numbers["diagnostic"]]
    filled = numbers["p_holm"] <= 0.05
    figure = go.Figure(
        go.Scatter(
            x=numbers["d"],
            y=rows,
            mode="markers",
            name=f"b − a of {about['samples']} samples, 95 % interval; filled: Holm's p at most 0.05",
            marker={
                "color": DIFFERENCE,
                "symbol": np.where(filled, "diamond", "diamond-open"),
                "size": 11,
                "line": {"width": 2, "color": DIFFERENCE},
            },
            error_x={
                "array": numbers["d_high"] - numbers["d"],
                "arrayminus": numbers["d"] - numbers["d_low"],
                "thickness": 2,
                "color": DIFFERENCE,
            },
            customdata=numbers[["mean_a", "mean_b", "n", "p"]],
            hovertemplate=(
                "%{y}: a %{customdata[0]:.3g}, b %{customdata[1]:.3g}, d %{x:.2f}, N = %{customdata[2]}, "
                "p %{customdata[3]:.2g}<extra></extra>"
            ),
        )
    )
    for name, row in zip(rows, numbers.to_dict("records"), strict=True):
        figure.add_annotation(
            text=_words(row), x=1.01, xref="paper", xanchor="left", y=name, yanchor="middle", align="left",
            showarrow=False,
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": INK, "dash": "dot", "width": 1.5})
    figure.update_xaxes(title="b − a, in standard deviations of the paired differences")
    figure.update_yaxes(autorange="reversed", dtick=1)
    finish(figure, 150 + 26 * len(numbers))
    head(figure, about)
    return figure.update_layout(showlegend=True, margin_r=230).update_annotations(font_size=11)


def _words(row: Mapping[str, float]) -> str:
    change = f"{row['estimate']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    if not np.isfinite(row["d"]):
        return "no difference" if row["estimate"] == 0 else "not finite"
    return change + (f", p {row['p_holm']:.2g}" if np.isfinite(row["p_holm"]) else "")
