"""What a sample is, by the names of its dimensions: an image, a video, curves, a point, or a set of points."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import xarray as xr

from gradscope.store.dims import sample_dims
from probes.variable import IMAGE_DIMS

ALONG = ("time", "horizon")
"""Dimensions along which a signal or a trajectory runs."""
VIDEO_DIMS = ("channel", "frame", "height", "width")


class SampleKind(NamedTuple):
    """What a sample is."""

    name: Literal["image", "video", "curves", "point", "points", "unknown"]
    dims: tuple[str, ...]
    """The dimensions in the order in which figures take them: of curves the one along them last."""


def sample_kind(dims: Sequence[str]) -> SampleKind:
    """What a sample with these dimensions is; ``unknown`` where no figure can show it.

    Examples
    --------
    >>> sample_kind(("horizon", "action"))
    SampleKind(name='curves', dims=('action', 'horizon'))
    >>> sample_kind(("point", "axis")).name, sample_kind(("row", "column")).name
    ('points', 'unknown')
    """
    dims = tuple(dims)
    if dims == IMAGE_DIMS:
        return SampleKind("image", dims)
    if dims == VIDEO_DIMS:
        return SampleKind("video", dims)
    if dims == ("axis",):
        return SampleKind("point", dims)
    if set(dims) == {"point", "axis"}:
        return SampleKind("points", ("point", "axis"))
    along = [dim for dim in dims if dim in ALONG]
    if len(dims) <= 2 and len(along) == 1:
        return SampleKind("curves", (*(dim for dim in dims if dim not in along), *along))
    return SampleKind("unknown", dims)


def why_not_drawn(ds: xr.Dataset) -> str:
    """Why the samples of a store are not drawn; empty if they are.

    Examples
    --------
    >>> why_not_drawn(xr.Dataset({"image": (("row", "column"), [[0, 1]])}, attrs={"sample_dims": ["row", "column"]}))
    'a sample of shape 1 x 2 over row, column cannot be drawn; curves, tables and findings do not need it'
    """
    dims = sample_dims(ds)
    if sample_kind(dims).name != "unknown":
        return ""
    shape = " x ".join(str(ds.sizes[dim]) for dim in dims if dim in ds.sizes)
    of_shape = f" of shape {shape}" if shape else ""
    return f"a sample{of_shape} over {', '.join(dims)} cannot be drawn; curves, tables and findings do not need it"
