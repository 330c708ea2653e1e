"""All final samples of a cell as points in the plane, with the verdicts on them."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.missing import require
from gradscope.analysis.verdicts import class_name, class_names
from gradscope.analysis.written import finished
from gradscope.errors import GradscopeError
from gradscope.plots.figure_numbers import full_cell
from gradscope.plots.layout import finish, legend_above
from gradscope.plots.plane import NOT_FINITE, in_plane, plane_titles
from gradscope.plots.style import GREY, PALETTE, escaped
from gradscope.store.dims import sample_dims
from gradscope.store.sample_kind import sample_kind

_VERDICTS = {
    "right": ("circle", PALETTE[2]),
    "guide fooled": ("triangle-up", PALETTE[1]),
    "wrong": ("x", PALETTE[1]),
    "no verdict": ("circle-open", GREY),
}
"""Symbol and colour of each verdict."""
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "star")
"""Symbols of classes, beside their colours."""


def finals(ds: xr.Dataset, cell: Mapping[str, str | float]) -> go.Figure:
    """The final samples of one cell, where a sample is a point: each at its place in the plane of its first two axes.

    Colours and symbols are the judge's verdicts, or those of the guide itself where there is no judge; without either,
    the target classes. A guide is fooled where it sees the target and the judge does not. A point of a single axis lies
    at the height of its number.

    Parameters
    ----------
    ds
        A store of points with final samples.
    cell
        Names of the cell; dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        The samples are not points, there is no such cell, or the store has no final samples.
    """
    return draw_finals(finals_numbers(ds, cell))


def finals_numbers(ds: xr.Dataset, cell: Mapping[str, str | float]) -> pd.DataFrame:
    """Numbers of `finals`, with the same argument: one row per finished sample.

    Returns
    -------
    pandas.DataFrame
        ``sample``; its target ``class``; ``right`` and ``up``, its place; ``verdict``. ``attrs``: the ``cell``, whose
        verdicts they are (``by``), and the number of ``axes``.
    """
    if sample_kind(sample_dims(ds)).name != "point":
        raise GradscopeError(f"only points lie in a plane; a sample here is over {', '.join(sample_dims(ds))}")
    require(ds, "image")
    names = [name for name in ("image", "written", "own_prediction", "judge_prediction") if name in ds]
    axes = ds.sizes["axis"]
    own = ds[names].isel(place(ds, cell)).isel(axis=slice(2)).compute()
    done = finished(own)
    points = own["image"].transpose("sample", "axis").values[done].astype(np.float64)
    samples, labels = ds["sample"].values[done], ds["label"].values[done]
    right, up = in_plane(points, samples)
    classes = class_names(ds)
    targets = [class_name(classes, number) for number in labels.tolist()]
    by = next((who for who in ("judge", "own") if f"{who}_prediction" in own), "")
    numbers = pd.DataFrame({"sample": samples, "class": targets, "right": right, "up": up})
    numbers["verdict"] = _verdicts(own, done, labels, by) if by else targets
    about = {"cell": cell_name(full_cell(ds, cell)), "by": {"judge": "judge", "own": "guide"}.get(by, "")}
    numbers.attrs = about | {"axes": axes}
    return numbers


def draw_finals(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `finals_numbers`."""
    about, figure = numbers.attrs, go.Figure()
    entries = _entries(numbers)
    for verdict, (symbol, colour) in entries.items():
        rows = numbers[numbers["verdict"] == verdict]
        name = f"{about['by']} {verdict}" if verdict in ("right", "wrong") and about["by"] else verdict
        figure.add_trace(
            go.Scatter(
                x=rows["right"],
                y=rows["up"],
                mode="markers",
                name=f"{escaped(name)} ({len(rows)})",
                marker={"symbol": symbol, "color": colour, "size": 7},
                customdata=rows["sample"].tolist(),  # a list: the dashboard's events do not decode arrays
                text=[escaped(target) for target in rows["class"]],
                hovertemplate="sample %{customdata}, %{text}: %{x:.3g}, %{y:.3g}",
            )
        )
    if lost := int((~np.isfinite(numbers[["right", "up"]])).any(axis=1).sum()):
        figure.add_annotation(
            text=f"{lost} {'sample is' if lost == 1 else 'samples are'} not finite and not drawn", x=0, xref="paper",
            xanchor="left", y=1, yref="paper", yanchor="bottom", font_color=NOT_FINITE, showarrow=False,
        )  # fmt: skip
    across, upwards = plane_titles(about["axes"], "sample")
    figure.update_xaxes(title=across)
    figure.update_yaxes(title=upwards, scaleanchor=None if about["axes"] == 1 else "x")
    room = legend_above(figure, len(entries))
    return finish(figure, 400 + room).update_layout(margin_t=room + 20)


def _entries(numbers: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """The verdicts or classes that occur, each with its symbol and colour."""
    there = set(numbers["verdict"])
    if numbers.attrs["by"]:
        return {verdict: style for verdict, style in _VERDICTS.items() if verdict in there}
    return {name: (_SYMBOLS[i % len(_SYMBOLS)], PALETTE[i % len(PALETTE)]) for i, name in enumerate(sorted(there))}


def _verdicts(own: xr.Dataset, done: np.ndarray, labels: np.ndarray, by: str) -> np.ndarray:
    """The key in `_VERDICTS` for each finished sample."""
    right, fooled, wrong, none = _VERDICTS
    seen = own[f"{by}_prediction"].values[done]
    guide = own["own_prediction"].values[done] if by == "judge" and "own_prediction" in own else np.full(len(seen), -1)
    return np.select([seen < 0, seen == labels, guide == labels], [none, right, fooled], wrong)
