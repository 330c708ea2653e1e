"""The path of one point from noise to its final place in some cells, with the gradients along it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import xarray as xr

from gradscope.analysis.cells import cell_name
from gradscope.errors import GradscopeError
from gradscope.plots.cell_style import line, look
from gradscope.plots.figure_numbers import by_cell
from gradscope.plots.layout import TIMESTEP, finish, legend_above
from gradscope.plots.plane import NOT_FINITE, arrows, plane_titles
from gradscope.plots.stored_trajectory import SHOWN, stored_trajectory
from gradscope.plots.style import GREY, escaped
from gradscope.store.dims import sample_dims
from gradscope.store.sample_kind import sample_kind

_ARROW = 0.08
"""Length of all arrows, as a share of the plane's width."""


def paths(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 50) -> go.Figure:
    """The path of x_t of one sample that is a point, in some cells, which share its noise.

    Arrows have the direction of the gradient, all the same length; dotted lines are x0-hat. A point of more than two
    axes is seen along its first two, one of a single axis over the timestep.

    Parameters
    ----------
    ds
        A store of points with ``x_t``.
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        Number of the sample.
    steps
        Largest number of timesteps; they are spaced evenly among those whose tensors are kept in all these cells.

    Raises
    ------
    GradscopeError
        The samples are not points, or the tensors of this sample are not in the store.
    """
    return draw_paths(paths_numbers(ds, cells, sample, steps))


def paths_numbers(
    ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 50
) -> pd.DataFrame:
    """Numbers of `paths`, with the same arguments: one row per cell and timestep.

    Returns
    -------
    pandas.DataFrame
        The cell; ``timestep``; for each stored tensor and its first two axes a column such as ``x_t_0``, gradients
        divided by their norm; ``gradient_norm``; ``lost``, the number of these values that are not finite.
    """
    if sample_kind(sample_dims(ds)).name != "point":
        raise GradscopeError(f"only points have a path; a sample here is over {', '.join(sample_dims(ds))}")
    return path_table(stored_trajectory(ds, cells, sample, steps))


def path_table(numbers: xr.Dataset) -> pd.DataFrame:
    """The numbers of `gradscope.plots.stored_trajectory` as the table of `paths_numbers`."""
    parts = []
    for i, cell in enumerate(numbers.attrs["cells"]):
        own = numbers.isel(cell=i)
        columns = {f"{name}_{axis}": own[name].values[:, axis]
                   for name in SHOWN if name in numbers for axis in range(min(numbers.sizes["axis"], 2))}  # fmt: skip
        norm = {"gradient_norm": own["gradient_norm"].values} if "gradient_norm" in numbers else {}
        lost = sum(own[f"{name}_lost"].values for name in SHOWN if name in numbers)
        parts.append(pd.DataFrame({**cell, "timestep": numbers["timestep"].values, **columns, **norm, "lost": lost}))
    table = pd.concat(parts, ignore_index=True)
    table.attrs = {key: numbers.attrs[key] for key in ("sample", "coordinates")} | {"axes": numbers.sizes["axis"]}
    return table


def draw_paths(numbers: pd.DataFrame) -> go.Figure:
    """Draw the numbers of `paths_numbers`."""
    known, axes = numbers.attrs["coordinates"], numbers.attrs["axes"]
    figure, parts = go.Figure(), list(by_cell(numbers))
    extent = _extent(numbers)
    for cell, rows in parts:
        name, colour = escaped(cell_name(cell)), look(known, cell).colour
        along = rows["timestep"].to_numpy()
        common = {"legendgroup": name, "text": [f"t = {t}" for t in along]}
        for tensor in (tensor for tensor in ("pred_original_sample", "x_t") if f"{tensor}_0" in rows):
            right, up = _places(rows, tensor, axes).T
            style = line(known, cell) if tensor == "x_t" else {
                "mode": "lines", "line": {"color": colour, "width": 1, "dash": "dot"}, "opacity": 0.7,
            }  # fmt: skip
            figure.add_trace(go.Scatter(
                x=right, y=up, name=name if tensor == "x_t" else f"{SHOWN[tensor]} of {name}", **common, **style,
                showlegend=tensor == "x_t", hovertemplate=f"{SHOWN[tensor]}, %{{text}}: %{{x:.3g}}, %{{y:.3g}}",
            ))  # fmt: skip
        if "x_t_0" in rows and "gradient_0" in rows:
            figure.add_trace(_arrows(rows, axes, extent, colour, name))
    if lost := int(numbers["lost"].sum()):
        figure.add_annotation(
            text=f"{lost} values are not finite and not drawn", font_color=NOT_FINITE, showarrow=False,
            x=0, xref="paper", xanchor="left", y=1, yref="paper", yanchor="bottom",
        )  # fmt: skip
    titles = (TIMESTEP, "axis 0") if axes == 1 else plane_titles(axes, "")
    figure.update_xaxes(title=titles[0], autorange="reversed" if axes == 1 else True)
    figure.update_yaxes(title=titles[1], scaleanchor=None if axes == 1 else "x", zeroline=True, zerolinecolor=GREY)
    room = legend_above(figure, len(parts))
    return finish(figure, 420 + room).update_layout(margin_t=room + 24)


def _places(rows: pd.DataFrame, tensor: str, axes: int) -> np.ndarray:
    """Positions ``(timesteps, 2)`` in the figure."""
    names = ["timestep", f"{tensor}_0"] if axes == 1 else [f"{tensor}_0", f"{tensor}_1"]
    return rows[names].to_numpy(dtype=np.float64)


def _extent(numbers: pd.DataFrame) -> float:
    """The larger extent of the paths."""
    places = {f"{name}_{axis}" for name in ("x_t", "pred_original_sample") for axis in (0, 1)}
    values = numbers[[column for column in numbers if column in places]].to_numpy(dtype=np.float64)
    known = values[np.isfinite(values)]
    return float(np.ptp(known)) if known.size else 1.0


def _arrows(rows: pd.DataFrame, axes: int, extent: float, colour: str, name: str) -> go.Scatter:
    """The direction of each gradient at x_t."""
    gradient = rows[[f"gradient_{axis}" for axis in range(min(axes, 2))]].to_numpy(dtype=np.float64)
    if axes == 1:
        gradient = np.stack([np.zeros(len(gradient)), gradient[:, 0]], axis=1)
    length = np.hypot(*gradient.T)[:, None]
    shift = _ARROW * extent * gradient / np.where(length > 0, length, 1)
    text = [f"t = {t}: norm {norm:.2e}" for t, norm in zip(rows["timestep"], rows["gradient_norm"], strict=True)]
    return arrows(_places(rows, "x_t", axes), shift, colour, name=f"gradient of {name}", text=text, showlegend=False,
                   legendgroup=name, hovertemplate="%{text}", opacity=0.8)  # fmt: skip
