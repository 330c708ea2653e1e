"""Pictures of one sample along t in several cells: x_t, x0-hat and the gradient."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.analysis.cells import place
from gradscope.analysis.missing import require
from gradscope.errors import GradscopeError
from gradscope.plots.figure_numbers import evenly, full_cell, sample_index
from gradscope.plots.layout import TIMESTEP, finish
from gradscope.plots.style import cell_name, escaped

_SHOWN = {"x_t": "x_t", "pred_original_sample": "x0-hat", "gradient": "gradient"}
_GAP = 2  # pixels between two frames
_WIDTH = 900  # width of the picture in pixels, on a wide screen


def trajectories(ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 8) -> go.Figure:
    """x_t, x0-hat and the gradient of one sample along t, in some cells, which share its noise.

    Gradients are divided by their norm, which stands below each, and averaged over channels. All have the same limits,
    symmetric around 0.

    Parameters
    ----------
    ds
        A store with some of ``x_t``, ``pred_original_sample`` and ``gradient``.
    cells
        Names of the cells; dimensions of size one may be left out.
    sample
        Number of the sample.
    steps
        Largest number of timesteps; they are spaced evenly among those whose tensors are kept in all these cells.

    Raises
    ------
    GradscopeError
        The store has none of the tensors, or not those of this sample.

    Examples
    --------
    >>> from gradscope.analysis import synthetic
    >>> figure = trajectories(synthetic.trajectories(samples=4), [{}], sample=0, steps=3)
    >>> figure.layout.xaxis.ticktext, figure.layout.yaxis.ticktext
    (('t = 980', 't = 500', 't = 0'), ('x_t', 'x0-hat', 'gradient'))
    """
    return draw_trajectories(trajectory_numbers(ds, cells, sample, steps))


def trajectory_numbers(
    ds: xr.Dataset, cells: Sequence[Mapping[str, str | float]], sample: int, steps: int = 8
) -> xr.Dataset:
    """Numbers of `trajectories`, with the same arguments.

    Returns
    -------
    xarray.Dataset
        Over ``cell`` (its name) and ``timestep``: the images in [0, 1], over height, width and channel (1 or 3);
        ``gradient``, divided by its l2 norm and averaged over channels; ``gradient_norm``. Without dimensions:
        ``limit``, the largest magnitude of 99 % of these averages in all cells.
    """
    names = [name for name in _SHOWN if name in ds]
    if not names:
        require(ds, *_SHOWN)
    chosen = [ds.isel(place(ds, cell), drop=True).isel(sample=sample_index(ds, sample)) for cell in cells]
    kept = np.flatnonzero(np.logical_and.reduce([cell["written"].values >= 3 for cell in chosen]))
    if not len(kept):
        raise GradscopeError(
            f"sample {sample}: its tensors are not kept in these cells; recording.tensor_samples is the number of "
            "samples that have them"
        )
    kept = evenly(kept, steps)
    over = ("cell", "timestep", "height", "width")
    out: dict[str, tuple] = {}
    for name in names:
        tensor = np.stack(
            [cell[name].isel(timestep=kept).transpose("timestep", "height", "width", "channel") for cell in chosen]
        )
        if name == "gradient":
            norm = np.sqrt((tensor.astype(np.float64) ** 2).sum(axis=(2, 3, 4)))
            unit = tensor / np.where(norm == 0, 1, norm)[..., None, None, None]
            out |= {name: (over, unit.mean(axis=-1)), "gradient_norm": (over[:2], norm)}
        else:
            out[name] = ((*over, "channel"), _image(tensor))
    in_words = [cell_name(full_cell(ds, cell)) for cell in cells]
    numbers = xr.Dataset(out, coords={"timestep": ds["timestep"].values[kept], "cell": in_words})
    if "gradient" in out:
        numbers["limit"] = abs(numbers["gradient"]).quantile(0.99).drop_vars("quantile")
    return numbers.assign_attrs(sample=sample)


def draw_trajectories(numbers: xr.Dataset) -> go.Figure:
    """Draw the numbers of `trajectory_numbers`: a strip for each cell and tensor, all in one picture."""
    names = [name for name in _SHOWN if name in numbers]
    height, width = numbers.sizes["height"], numbers.sizes["width"]
    line = max(5, height // 5)  # room for a line of text, in the picture's pixels
    centres = [k * (width + _GAP) + (width - 1) / 2 for k in range(numbers.sizes["timestep"])]
    figure = go.Figure()
    colours, maps, rows, at = [], [], {}, 0
    for cell in numbers["cell"].values:
        figure.add_annotation(text=f"<b>{escaped(cell)}</b>", x=-0.5, xanchor="left", y=at + line / 2)
        at += line
        for name in names:
            picture, gradient = _strips(numbers[name].sel(cell=cell))
            below = [(0, line if name == "gradient" else _GAP), (0, 0)]
            above = [(line if name == names[0] else 0, 0), (0, 0)]
            maps.append(np.pad(gradient, np.add(above, below), constant_values=np.nan))
            colours.append(np.pad(picture, [*np.add(above, below), (0, 0)], constant_values=np.nan))
            rows[at + (height - 1) / 2] = _SHOWN[name]
            at += height + below[0][1]
            if name == "gradient":
                for x, norm in zip(centres, numbers["gradient_norm"].sel(cell=cell).values, strict=True):
                    figure.add_annotation(text=f"norm {norm:.1e}", x=x, y=at - line / 2, xanchor="center")
    colour = np.concatenate(colours)
    figure.update_annotations(showarrow=False, yanchor="middle")
    figure.add_trace(go.Image(z=_opaque(colour), colormodel="rgba256", hoverinfo="skip"))
    if "gradient" in names:
        limit = float(numbers["limit"])
        bar = {"title": {"text": "gradient / its norm", "side": "right"}, "thickness": 14, "len": 0.6}
        figure.add_trace(
            go.Heatmap(
                z=np.concatenate(maps), zmin=-limit, zmax=limit, colorscale="RdBu_r", colorbar=bar, hoverongaps=False,
                hovertemplate="%{z:.2g}<extra></extra>",
            )
        )  # fmt: skip
    plain = {"showgrid": False, "zeroline": False, "constrain": "domain"}
    figure.update_xaxes(
        tickvals=centres,
        ticktext=[f"t = {t}" for t in numbers["timestep"].values],
        range=[-0.5, colour.shape[1] - 0.5],
        title=TIMESTEP,
        **plain,
    )
    figure.update_yaxes(
        tickvals=list(rows), ticktext=list(rows.values()), range=[len(colour) - 0.5, -0.5], scaleanchor="x", **plain
    )
    return finish(figure, 110 + round(_WIDTH * colour.shape[0] / colour.shape[1]))


def _strips(values: xr.DataArray) -> tuple[NDArray, NDArray]:
    """A tensor's frames side by side: as colours, and as values of a map; one of the two is all NaN."""
    frames = values.values
    if values.name == "gradient":
        gradient = _strip(frames)
        return np.full((*gradient.shape, 3), np.nan), gradient
    picture = _strip(np.broadcast_to(frames, (*frames.shape[:-1], 3)))
    return picture, np.full(picture.shape[:-1], np.nan)


def _image(tensor: NDArray) -> NDArray:
    """Map [-1, 1] to [0, 1]; channels are averaged unless there are 1 or 3."""
    if tensor.shape[-1] not in (1, 3):
        tensor = tensor.mean(axis=-1, keepdims=True)
    return np.clip((tensor + 1) / 2, 0, 1)


def _strip(frames: NDArray) -> NDArray:
    """Frames ``(timesteps, height, width, ...)`` side by side, with gaps of NaN between them."""
    gap = [(0, 0), (0, 0), (0, _GAP), *[(0, 0)] * (frames.ndim - 3)]
    return np.concatenate(np.pad(frames, gap, constant_values=np.nan), axis=1)[:, :-_GAP]


def _opaque(picture: NDArray) -> NDArray[np.uint8]:
    """Red, green, blue in [0, 1] as bytes, with an opacity: transparent where a pixel is NaN."""
    opacity = np.isfinite(picture).all(axis=-1, keepdims=True)
    return np.round(255 * np.concatenate([np.nan_to_num(picture), opacity], axis=-1)).astype(np.uint8)
