"""The outcome of a run: accuracies with intervals, the judge's confusion, the effect of each technique."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cell_name, place
from gradscope.analysis.independence import also_guides
from gradscope.analysis.missing import require
from gradscope.analysis.summary import summary
from gradscope.analysis.technique_effects import compare_all
from gradscope.analysis.verdicts import class_names
from gradscope.plots.layout import finish
from gradscope.plots.style import GREY, PALETTE, escaped
from gradscope.store.dims import cell_dims

_VIEWERS = {"judge": (PALETTE[0], ""), "own": (PALETTE[3], "/")}
"""Colour of the judge and of the guide itself, and a pattern that distinguishes them without colour."""
_SYMBOLS = ("circle", "square", "diamond", "cross", "triangle-up")


def accuracy(ds: xr.Dataset) -> go.Figure:
    """Accuracy of every guided cell by the judge and by its own guide, with intervals; chance; the unguided control.

    Parameters
    ----------
    ds
        A store with verdicts.

    Raises
    ------
    GradscopeError
        The store has no verdicts.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> [trace.name for trace in accuracy(synthetic.trajectories(samples=8)).data]
    ['judge', 'own', 'chance 0.25']
    """
    return draw_accuracy(accuracy_numbers(ds))


def accuracy_numbers(ds: xr.Dataset) -> pd.DataFrame:
    """Numbers of `accuracy`, with the same arguments: one row per cell.

    Returns
    -------
    pandas.DataFrame
        The cell; ``n``, the number of its finished samples; ``judge`` and ``own``, the shares of samples in which the
        judge and the guide see the target class, if the store has their verdicts, each with its 95 % interval
        ``<name>_low``, ``<name>_high``. ``attrs["chance"]``: one over the number of classes.
    """
    if "judge_prediction" not in ds:
        require(ds, "own_prediction")
    rows = summary(ds[[v for v in ("written", "finite_fraction", "own_prediction", "judge_prediction") if v in ds]])
    columns = {"n": rows["samples"]}
    for name in _VIEWERS:
        if f"{name}_accuracy" in rows:
            columns[name] = rows[f"{name}_accuracy"]
            interval = rows[f"{name}_accuracy_interval"]
            columns |= {f"{name}_{end}": interval.sel(bound=end, drop=True) for end in ("low", "high")}
    table = xr.Dataset({key: values.reset_coords(drop=True) for key, values in columns.items()})
    dims = cell_dims(ds)
    numbers = table.to_dataframe(dim_order=list(dims)).reset_index()[[*dims, *columns]]
    numbers.attrs = {"chance": 1 / len(class_names(ds)), "judge_is_guide": "judge" in also_guides(ds)}
    return numbers


def draw_accuracy(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `accuracy_numbers`: guided cells as bars, the unguided control as a line.

    All unguided cells have the same images, so one line suffices.
    """
    control, guided = (numbers[numbers["guidance_scale"].eq(0) == zero] for zero in (True, False))
    shown = guided if len(guided) else control
    figure = go.Figure()
    for name, (colour, pattern) in _VIEWERS.items():
        if name not in shown:
            continue
        figure.add_trace(
            go.Bar(
                x=shown[name],
                y=[escaped(cell_name(cell)) for cell in _records(shown)],
                name="judge (also a guide)" if name == "judge" and numbers.attrs["judge_is_guide"] else name,
                orientation="h",
                marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white"}, "line": {"width": 0}},
                error_x={
                    "array": shown[f"{name}_high"] - shown[name],
                    "arrayminus": shown[name] - shown[f"{name}_low"],
                    "color": GREY,
                    "thickness": 1.5,
                },
                customdata=shown[[f"{name}_low", f"{name}_high", "n"]],
                hovertemplate="%{y}: %{x:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}], N = %{customdata[2]}",
            )
        )
    lines = {"chance": (numbers.attrs["chance"], "dot")}
    if len(control) and "judge" in control:
        lines["unguided control"] = (control["judge"].iloc[0], "dash")
    for name, (at, dash) in lines.items():
        figure.add_trace(
            go.Scatter(x=[at, at], y=[0, 1], yaxis="y2", mode="lines", name=f"{name} {at:.2f}", hoverinfo="name",
                       line={"color": GREY, "dash": dash, "width": 2})
        )  # fmt: skip
    figure.update_xaxes(title="share of samples of the target class", range=[0, 1.02])
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(
        yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True},
        legend={"orientation": "h", "y": 1, "yanchor": "bottom"},
        bargap=0.25,
    )
    return finish(figure, 130 + 40 * len(shown)).update_layout(yaxis2_autorange=False)


def confusion(ds: xr.Dataset, cell: Mapping[str, str | float]) -> go.Figure:
    """The class that the judge sees, for the samples of each target class of one cell.

    Parameters
    ----------
    ds
        An evaluated store.
    cell
        Names of the cell; dimensions of size one may be left out.

    Raises
    ------
    GradscopeError
        The store is not evaluated, or has no such cell.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> ds = synthetic.trajectories(samples=8).assign_coords({"class": list("ab"), "judge_class": list("ab")})
    >>> ds["confusion"] = ("class", "judge_class"), np.array([[3, 1], [0, 4]])
    >>> ds["confusion"] = ds.confusion.expand_dims(ds.coverage.dims)
    >>> confusion(ds, {}).data[0].z.tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    return draw_confusion(confusion_numbers(ds, cell))


def confusion_numbers(ds: xr.Dataset, cell: Mapping[str, str | float]) -> pd.DataFrame:
    """Numbers of `confusion`: samples of a cell by target class (rows) and class that the judge sees (columns)."""
    require(ds, "confusion")
    counts = ds["confusion"].isel(place(ds, cell)).transpose("class", "judge_class")
    return pd.DataFrame(counts.values, index=ds["class"].values, columns=ds["judge_class"].values)


def draw_confusion(counts: pd.DataFrame) -> go.Figure:
    """Draw the counts of `confusion_numbers`; the colour is the share of the target class."""
    values = counts.to_numpy()
    total = values.sum(axis=1, keepdims=True)
    figure = go.Figure(
        go.Heatmap(
            x=[escaped(name) for name in counts.columns],
            y=[escaped(name) for name in counts.index],
            z=np.divide(values, total, out=np.full(values.shape, np.nan), where=total > 0),
            zmin=0,
            zmax=1,
            text=values,
            texttemplate="%{text}",
            colorscale="Cividis",
            colorbar={"title": {"text": "share of the class", "side": "right"}, "thickness": 14},
            hovertemplate="target %{y}, judge %{x}: %{text} (%{z:.2f})<extra></extra>",
        )
    )
    figure.update_xaxes(title="class that the judge sees", type="category")
    figure.update_yaxes(title="target class", type="category", autorange="reversed")
    return finish(figure, 120 + 50 * len(counts))


def effects(ds: xr.Dataset, baseline: str = "none") -> go.Figure:
    """The change of the judge's accuracy by each technique, with its 95 % interval.

    Parameters
    ----------
    ds
        A store with the judge's verdicts.
    baseline
        Name of the stabiliser that counts as none.

    Raises
    ------
    GradscopeError
        The store has several stabilisers, and `baseline` is not one of them.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> parts = [synthetic.trajectories(samples=8).assign_coords(stabilizer=[name]) for name in ("none", "adam")]
    >>> figure = effects(xr.concat(parts, "stabilizer", data_vars="all", join="outer"))
    >>> figure.data[0].name, figure.data[0].y
    ('against none', ('synthetic: adam (x_t)',))
    """
    return draw_effects(compare_all(ds, baseline))


def draw_effects(table: pd.DataFrame) -> go.Figure:
    """Draw the table of `gradscope.analysis.compare_all`."""
    figure = go.Figure()
    several = table["guidance_scale"].nunique() > 1
    for i, (against, rows) in enumerate(table.groupby("against", sort=False)):
        names = [effect_name(row) + (f", scale {row['guidance_scale']:g}" if several else "") for row in _records(rows)]
        figure.add_trace(
            go.Scatter(
                x=rows["accuracy"],
                y=[escaped(name) for name in names],
                name=f"against {escaped(against)}",
                mode="markers",
                marker={"color": PALETTE[i % len(PALETTE)], "symbol": _SYMBOLS[i % len(_SYMBOLS)], "size": 11},
                error_x={
                    "array": rows["accuracy_high"] - rows["accuracy"],
                    "arrayminus": rows["accuracy"] - rows["accuracy_low"],
                    "thickness": 2,
                },
                customdata=rows[["accuracy_low", "accuracy_high", "n", "p_holm"]],
                hovertemplate=(
                    "%{x:+.3f} [%{customdata[0]:+.3f}, %{customdata[1]:+.3f}], N = %{customdata[2]}, "
                    "Holm's p %{customdata[3]:.2g}"
                ),
            )
        )
    figure.add_vline(x=0, line={"color": GREY, "dash": "dot", "width": 2})
    figure.update_xaxes(title="change of the judge's accuracy")
    figure.update_yaxes(autorange="reversed")
    figure.update_layout(legend={"orientation": "h", "y": 1, "yanchor": "bottom"})
    return finish(figure, 130 + 28 * len(table))


def effect_name(row: Mapping[str, Any]) -> str:
    """A row of `gradscope.analysis.compare_all` in words: ``robust: x0 (adam)`` is x0 with adam in both cells."""
    return f"{row['classifier']}: {row['technique']}" + (f" ({row['at']})" if row["at"] else "")


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return table.to_dict("records")
