"""Pictures of one sample along t: strips of images, or of frames of a video, all in one picture."""

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from numpy.typing import NDArray

from gradscope.plots.figure_numbers import evenly
from gradscope.plots.layout import TIMESTEP, finish
from gradscope.plots.stored_trajectory import SHOWN
from gradscope.plots.style import escaped

FRAMES = 4
"""Frames of a video side by side."""
_GAP = 2  # pixels between two frames
_WIDTH = 900  # width of the picture in pixels, on a wide screen


def pictures(numbers: xr.Dataset) -> xr.Dataset:
    """Tensors of images or videos as pictures: see `gradscope.plots.trajectories.trajectory_numbers`."""
    if "frame" in numbers.dims:
        numbers = _side_by_side(numbers)
    out: dict[str, tuple] = {}
    for name in (name for name in SHOWN if name in numbers):
        tensor = numbers[name].transpose("cell", "timestep", "height", "width", "channel")
        if name == "gradient":
            out[name] = (tensor.dims[:-1], tensor.values.mean(axis=-1))
            out["gradient_norm"] = (tensor.dims[:2], numbers["gradient_norm"].values)
        else:
            out[name] = (tensor.dims, _image(tensor.values))
    found = xr.Dataset(out, coords=numbers.coords, attrs=numbers.attrs)
    if "gradient" in out:
        found["limit"] = abs(found["gradient"]).quantile(0.99).drop_vars("quantile")
    return found


def _side_by_side(videos: xr.Dataset) -> xr.Dataset:
    """Some frames of videos as one wide image each, with a column of NaN between two frames."""
    frames = videos.isel(frame=evenly(np.arange(videos.sizes["frame"]), FRAMES))
    wide = frames.pad(width=(0, 1)).stack(across=("frame", "width"), create_index=False)
    return wide.isel(across=slice(-1)).rename(across="width")


def draw_pictures(numbers: xr.Dataset) -> go.Figure:
    """Draw the numbers of `pictures`: a strip for each cell and tensor, all in one picture."""
    names = [name for name in SHOWN if name in numbers]
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
            rows[at + (height - 1) / 2] = SHOWN[name]
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
