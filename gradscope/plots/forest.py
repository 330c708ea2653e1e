"""All diagnostics of a comparison on one axis."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.comparison import compare
from gradscope.analysis.means import Floats
from gradscope.analysis.paired_cells import RESOLUTION, paired_difference
from gradscope.analysis.statistics import Test
from gradscope.analysis.verdict import p_text
from gradscope.analysis.verdicts import correct, judged
from gradscope.plots.cell_pair import CellPair, cell_names, name_cells_above, quantity
from gradscope.plots.layout import finish
from gradscope.plots.style import DIFFERENCE, GREY, escaped

ACCURACY = "judge's accuracy"
"""Name of its row."""


def forest(
    ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float], other: xr.Dataset | None = None
) -> go.Figure:
    """The change of the judge's accuracy and of every diagnostic from cell a to cell b, in standard deviations.

    These are of the paired differences, or pooled over both cells where samples are not pairs. On the right stand the
    change in its own unit with its 95 % interval, and Holm's p; for the accuracy its own p. A marker is filled if that
    p is at most 0.05.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    a, b
        Names of the two cells; dimensions of size one may be left out.
    other
        The store of b, or its scalars; None if it is that of a.

    Raises
    ------
    GradscopeError
        A cell is unknown or ambiguous, or both are the same.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> parts = [synthetic.trajectories(seed=k).assign_coords(stabilizer=[name]) for k, name in enumerate("ab")]
    >>> both = xr.concat(parts, "stabilizer", data_vars="all", join="outer")
    >>> forest(both, {"stabilizer": "a"}, {"stabilizer": "b"}).data[0].y[:2]
    ("judge's accuracy", 'gradient_cosine')
    """
    return draw_forest(forest_numbers(ds, a, b, other))


def forest_numbers(
    ds: xr.Dataset, a: Mapping[str, str | float], b: Mapping[str, str | float], other: xr.Dataset | None = None
) -> pd.DataFrame:
    """Numbers of `forest`, with the same arguments: one row for the judge's accuracy, one for each diagnostic.

    Returns
    -------
    pandas.DataFrame
        `gradscope.analysis.Comparison.scalars` (``estimate`` of b − a with ``low``, ``high``, in the diagnostic's
        unit), and ``d``, ``d_low``, ``d_high``: the same divided by the standard deviation of the difference over
        samples (Cohen's d of paired samples), or by the root mean square of both cells' standard deviations where
        samples are not pairs; NaN if no sample differs. ``attrs["samples"]``: the number of samples that are finished
        in both cells, or in a.
    """
    pair, found = CellPair(ds, a, b, other=other), compare(ds, a, b, other)
    rows = found.scalars
    values = [pair.trajectories(quantity(ds, title)) for title in rows["diagnostic"]]
    if found.accuracy is not None and np.isfinite(found.accuracy.estimate):
        verdicts = _verdicts(pair)
        values.insert(0, verdicts)
        rows = pd.concat([_accuracy_row(found.accuracy, verdicts), rows], ignore_index=True)
    spread = np.array([_spread(*each, paired=pair.paired) for each in values])
    unit = np.where(spread > 0, spread, np.nan)
    numbers = rows.assign(d=rows["estimate"] / unit, d_low=rows["low"] / unit, d_high=rows["high"] / unit)
    numbers.attrs = {**cell_names(pair), "samples": found.samples}
    return numbers


def _verdicts(pair: CellPair) -> tuple[Floats, Floats]:
    """Whether the judge sees the target class: 1, 0, or NaN without a verdict, for the samples of a and of b."""
    first, second = (
        np.where(judged(cell), correct(cell, "judge_prediction"), np.nan)[rows]
        for cell, rows in zip(pair.cells, pair.rows, strict=True)
    )
    return first, second


def _accuracy_row(test: Test, verdicts: tuple[Floats, Floats]) -> pd.DataFrame:
    """A row like those of `gradscope.analysis.Comparison.scalars`; its p stands alone."""
    a, b = verdicts
    if len(a) == len(b) == test.n:
        a, b = a[np.isfinite(a + b)], b[np.isfinite(a + b)]
    shares = {"mean_a": np.nanmean(a), "mean_b": np.nanmean(b)}
    return pd.DataFrame([vars(test) | shares | {"diagnostic": ACCURACY, "p_holm": test.p}]).drop(columns="effect_name")


def _spread(a: Floats, b: Floats, paired: bool) -> float:
    """Standard deviation over samples that the change is divided by.

    NaN where fewer than two are finite, or where the samples differ by rounding of float32 only.
    """
    parts = [x[np.isfinite(x)] for x in ((paired_difference(a, b),) if paired else (a, b))]
    if min(map(len, parts)) < 2:
        return np.nan
    spread = float(np.mean([x.var(ddof=1) for x in parts]) ** 0.5)
    size = max(float(np.abs(x[np.isfinite(x)]).max()) for x in (a, b))
    return spread if spread > RESOLUTION * size else np.nan


def draw_forest(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `forest_numbers`."""
    about = numbers.attrs
    rows = [escaped(name) for name in numbers["diagnostic"]]
    filled = numbers["p_holm"] <= 0.05
    figure = go.Figure(
        go.Scatter(
            x=numbers["d"],
            y=rows,
            mode="markers",
            name=f"b − a of {about['samples']} samples, 95 % interval; filled: p at most 0.05",
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
            text=_in_words(row), x=1.01, xref="paper", xanchor="left", y=name, yanchor="middle", align="left",
            showarrow=False,
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot", "width": 1.5})
    unit = "standard deviations" if about["unpaired"] else "standard deviations of the paired differences"
    figure.update_xaxes(title=f"b − a, in {unit}")
    figure.update_yaxes(autorange="reversed", dtick=1)
    finish(figure, 150 + 26 * len(numbers))
    name_cells_above(figure, about)
    return figure.update_layout(showlegend=True, margin_r=230).update_annotations(font_size=11)


def _in_words(row: Mapping[str, float]) -> str:
    """The change with its interval, and Holm's p if there is one."""
    change = f"{row['estimate']:+.3g} [{row['low']:.3g}, {row['high']:.3g}]"
    if not np.isfinite(row["estimate"]):
        return "not finite"
    if row["estimate"] == 0 and not np.isfinite(row["d"]):
        return "no difference"
    return change + (f", p {p_text(row['p_holm'])}" if np.isfinite(row["p_holm"]) else "")
