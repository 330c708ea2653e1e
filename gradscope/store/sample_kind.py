"""What a sample is, by the names of its dimensions: an image, a video, curves, a point, or a set of points."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

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


def why_not_drawn(dims: Sequence[str], sizes: Sequence[int]) -> str:
    """Why samples with these dimensions are not drawn; empty if they are.

    Examples
    --------
    >>> why_not_drawn(("row", "column"), (3, 4))
    'a sample of shape 3 x 4 over row, column cannot be drawn; curves, tables and findings do not need it'
    >>> why_not_drawn(("point", "axis"), (8, 2))
    ''
    """
    if sample_kind(dims).name != "unknown":
        return ""
    shape = " x ".join(map(str, sizes))
    what = f"a sample of shape {shape} over {', '.join(dims)}" if shape else f"a sample over {', '.join(dims)}"
    return f"{what} cannot be drawn; curves, tables and findings do not need it"
