"""The same samples in two cells: a diagnostic in one cell against the other, and the judge's verdicts."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.verdicts import class_name, class_names, correct, judged
from gradscope.errors import GradscopeError
from gradscope.plots.cell_pair import CellPair, cell_names, name_cells_above, quantity, titled
from gradscope.plots.layout import finish
from gradscope.plots.style import DIFFERENCE, GREY, escaped

_VERDICTS = {
    "right in both": ("circle", GREY),
    "right in b only": ("triangle-up", DIFFERENCE),
    "right in a only": ("triangle-down", DIFFERENCE),
    "wrong in both": ("x-thin", GREY),
    "no verdict": ("circle-open", GREY),
}
"""Symbol and colour of each verdict."""


def pairs(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    selected: Sequence[int] = (),
    other: xr.Dataset | None = None,
) -> go.Figure:
    """Samples in cell b against the same samples in cell a: a diagnostic's mean over the trajectory.

    ``customdata`` holds the sample's number.

    Parameters
    ----------
    ds
        A store, or the scalars of one.
    name
        A diagnostic, or a title of `gradscope.analysis.comparison.SCALARS` such as ``final log_prob``.
    a, b
        Names of the two cells; dimensions of size one may be left out.
    selected
        Samples to emphasise; all if empty.
    other
        The store of b, or its scalars; None if it is that of a.

    Raises
    ------
    GradscopeError
        The store has no such diagnostic or cell, both cells are the same, or their samples are not pairs.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> parts = [synthetic.trajectories(samples=8).assign_coords(stabilizer=[name]) for name in ("none", "adam")]
    >>> both = xr.concat(parts, "stabilizer", data_vars="all", join="outer")
    >>> [trace.name for trace in pairs(both, "log_prob", {"stabilizer": "none"}, {"stabilizer": "adam"}).data]
    ['right in both (8)']
    """
    return draw_pairs(pairs_numbers(ds, name, a, b, selected, other))


def pairs_numbers(
    ds: xr.Dataset,
    name: str,
    a: Mapping[str, str | float],
    b: Mapping[str, str | float],
    selected: Sequence[int] = (),
    other: xr.Dataset | None = None,
) -> pd.DataFrame:
    """Numbers of `pairs`, with the same arguments: one row per sample that is finished in both cells.

    Returns
    -------
    pandas.DataFrame
        ``sample``; its target ``class``; ``a`` and ``b``, the mean over the timesteps at which both are finite;
        ``verdict``, in which of the cells the judge sees the target class; ``selected``, whether to emphasise it.
    """
    shown, pair = quantity(ds, name), CellPair(ds, a, b, other=other)
    if not pair.paired:
        raise GradscopeError(f"samples are not pairs: {pair.why_unpaired}")
    first, second = pair.trajectories(shown)
    classes, samples = class_names(pair.stores[0]), pair.samples[0]
    labels = pair.stores[0]["label"].values[pair.rows[0]].tolist()
    numbers = pd.DataFrame(
        {
            "sample": samples,
            "class": [class_name(classes, number) for number in labels],
            "a": first,
            "b": second,
            "verdict": _verdicts(pair),
            "selected": np.isin(samples, selected) if len(selected) else True,
        }
    )
    numbers.attrs = {**cell_names(pair), "label": titled(ds, shown)}
    return numbers


def draw_pairs(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `pairs_numbers`."""
    about, title, figure = numbers.attrs, escaped(numbers.attrs["label"]), go.Figure()
    for verdict, (symbol, colour) in _VERDICTS.items():
        rows = numbers[numbers["verdict"] == verdict]
        if rows.empty:
            continue
        figure.add_trace(
            go.Scatter(
                x=rows["a"],
                y=rows["b"],
                mode="markers",
                name=f"{verdict} ({len(rows)})",
                marker={"symbol": symbol, "color": colour, "size": 9, "line": {"width": 1.5, "color": colour}},
                customdata=rows["sample"].tolist(),  # a list: the dashboard's events do not decode arrays
                selectedpoints=None if numbers["selected"].all() else np.flatnonzero(rows["selected"]),
                unselected={"marker": {"opacity": 0.2}},
                text=[escaped(name) for name in rows["class"]],
                hovertemplate="sample %{customdata}, %{text}<br>a %{x:.3g}, b %{y:.3g}",
            )
        )
    ends = np.nanquantile(numbers[["a", "b"]], (0, 1)) if numbers[["a", "b"]].notna().any(axis=None) else (0, 1)
    room = 0.05 * (ends[1] - ends[0])
    limits = [ends[0] - room, ends[1] + room]
    figure.add_shape(
        type="line", x0=limits[0], x1=limits[1], y0=limits[0], y1=limits[1], layer="below",
        line={"color": GREY, "dash": "dot", "width": 1.5},
    )  # fmt: skip
    figure.update_xaxes(title=f"{title}, a", range=limits, constrain="domain")
    figure.update_yaxes(title=f"{title}, b", range=limits, scaleanchor="x", constrain="domain")
    figure.update_layout(dragmode="select", clickmode="event+select")
    finish(figure, 460)
    name_cells_above(figure, about)
    return figure


def _verdicts(pair: CellPair) -> np.ndarray:
    """The key in `_VERDICTS` for each sample."""
    right, only_b, only_a, wrong, none = _VERDICTS
    if any("judge_prediction" not in cell for cell in pair.cells):
        return np.full(len(pair.samples[0]), none)
    each = list(zip(pair.cells, pair.rows, strict=True))
    known = np.logical_and(*(judged(cell)[rows] for cell, rows in each))
    a, b = (correct(cell, "judge_prediction")[rows] for cell, rows in each)
    return np.select([~known, a & b, b, a], [none, right, only_b, only_a], wrong)
