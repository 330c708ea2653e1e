"""Images, and the frames of videos in a row: one pixel of the tensor is one pixel of the tile."""

from dataclasses import replace
from functools import cache

import numpy as np
from numpy.typing import NDArray
from plotly.colors import hex_to_rgb, sample_colorscale, unlabel_rgb

from dashboards.images.tensors import MAGENTA, MAPS, Drawn, Floats, Pixels, Tensors, own

FRAMES = 8
"""Frames of a video in a row."""
_QUANTILE = 0.995
_SPREAD = 1000.0
"""Ratio of the limit to the value at which a logarithmic scale turns linear."""


def tiles(tensors: Tensors) -> dict[str, Drawn]:
    """Tiles of images, by tensor: maps in red and blue, others as images in [-1, 1]."""
    found = {}
    for name, x in tensors.values.items():
        if name in MAPS:
            found[name] = _map(name, x, tensors)
        else:
            found[name] = image(shown_values(name, x, tensors.channel)), limits(name, x)
    return found


def shown_values(name: str, tensor: Floats, channel: int | None) -> Floats:
    """What is drawn of ``(n, channel, ...)``: one channel; else the mean of a map, and all channels of an image."""
    if channel is not None:
        return tensor[:, channel : channel + 1]
    with np.errstate(invalid="ignore"):  # inf - inf
        return tensor.mean(axis=1, keepdims=True, dtype=np.float64) if name in MAPS else tensor


def limits(name: str, tensor: Floats, channel: int | None = None) -> NDArray[np.float64]:
    """The limit of each row by its own values: the `_QUANTILE` quantile of a map's magnitudes; 1 for images."""
    return own(shown_values(name, tensor, channel), _limit) if name in MAPS else np.ones(len(tensor))


def video_limits(name: str, tensor: Floats, channel: int | None = None) -> NDArray[np.float64]:
    """See `limits`; of the shown frames."""
    return limits(name, _in_a_row(tensor), channel)


def shown_of_video(name: str, tensor: Floats, channel: int | None) -> Floats:
    """See `shown_values`; of the shown frames."""
    return shown_values(name, _in_a_row(tensor), channel)


def scaled(values: Floats, end: Floats, log: bool) -> Floats:
    """Values as shares of their limits, in [-1, 1]; 0 for a limit of 0.

    The logarithmic scale is symmetric: ``sign(v) log(1 + 1000 |v| / end) / log(1001)``. It is nearly linear below a
    thousandth of the limit.
    """
    shares = (values / np.where(end > 0, end, np.inf)).clip(-1, 1)
    return np.sign(shares) * np.log1p(_SPREAD * np.abs(shares)) / np.log1p(_SPREAD) if log else shares


def video_tiles(tensors: Tensors) -> dict[str, Drawn]:
    """Tiles of videos, by tensor: see `tiles` and `video`."""
    rows = {name: _in_a_row(x) for name, x in tensors.values.items()}
    drawn = tiles(replace(tensors, values=rows))
    return {name: (_with_gaps(pixels, tensors.values[name]), ends) for name, (pixels, ends) in drawn.items()}


def shown_frames(count: int) -> NDArray[np.int64]:
    """The frames that are shown of this number: all, or some at even distances, with the first and the last."""
    return np.unique(np.linspace(0, count - 1, min(count, FRAMES)).round().astype(int))


def row_width(count: int, width: int) -> int:
    """Width in pixels of the shown frames in a row, from the number of all frames and the width of one."""
    return len(shown_frames(count)) * (width + 1) - 1


def image(tensor: Floats) -> Pixels:
    """Images in [-1, 1] as colours, ``(n, height, width, 3)``; the mean over channels unless there are three."""
    with np.errstate(invalid="ignore"):
        channels = tensor if tensor.shape[1] == 3 else tensor.mean(axis=1, keepdims=True, dtype=np.float64)
    values = np.moveaxis(np.broadcast_to(channels, (len(tensor), 3, *tensor.shape[2:])), 1, -1)
    finite = np.isfinite(values).all(axis=-1)
    pixels = np.rint(127.5 * (np.where(finite[..., None], values, 0).clip(-1, 1) + 1)).astype(np.uint8)
    pixels[~finite] = hex_to_rgb(MAGENTA)
    return pixels


def video(tensor: Floats) -> Pixels:
    """Frames of videos, ``(n, channel, frame, height, width)``, in a row with white lines between them."""
    return _with_gaps(image(_in_a_row(tensor)), tensor)


def _map(name: str, tensor: Floats, tensors: Tensors) -> Drawn:
    """A map as colours, ``(rows, height, width, 3)``, and the colour limit of each row."""
    values = shown_values(name, tensor, tensors.channel)[:, 0].astype(np.float64)
    ends = tensors.ends(name, values, _limit)
    finite = np.isfinite(values)
    known = np.where(finite, values, 0)
    shares = scaled(known, ends[:, None, None], tensors.log)
    middle = len(_colors()) // 2
    pixels = _colors()[middle + np.rint(middle * shares).astype(int)]
    pixels[~finite] = hex_to_rgb(MAGENTA)
    return pixels, ends


def _limit(values: Floats) -> float:
    known = np.abs(values[np.isfinite(values)])
    return float(np.quantile(known, _QUANTILE)) if known.size else 0.0


@cache
def _colors() -> Pixels:
    """Plotly's RdBu_r, the colours of the heat maps; white in the middle, ``(255, 3)``."""
    return np.rint([unlabel_rgb(text) for text in sample_colorscale("RdBu_r", 255)]).astype(np.uint8)


def _in_a_row(tensor: Floats) -> Floats:
    """The shown frames of videos side by side, as one wide image each."""
    frames = np.moveaxis(tensor[:, :, shown_frames(tensor.shape[2])], 2, 3)
    return frames.reshape(*frames.shape[:3], -1)


def _with_gaps(pixels: Pixels, tensor: Floats) -> Pixels:
    """White columns between the frames of wide images."""
    rows, height, width, _ = pixels.shape
    frames = pixels.reshape(rows, height, width // tensor.shape[-1], tensor.shape[-1], 3)
    gap = [(0, 0), (0, 0), (0, 0), (0, 1), (0, 0)]
    return np.pad(frames, gap, constant_values=255).reshape(rows, height, -1, 3)[:, :, :-1]
