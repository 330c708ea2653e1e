"""What a picture of samples shows, in words, and the shape of its tiles."""

from collections.abc import Mapping

from dashboards.images import curves, pixels
from dashboards.images.tensors import MAPS
from gradscope.store.sample_kind import SampleKind


def aspect(kind: SampleKind, sizes: Mapping[str, int]) -> float:
    """Width of a tile, as a multiple of its height."""
    if kind.name == "video":
        return pixels.row_width(sizes["frame"], sizes["width"]) / max(sizes["height"], 1)
    return curves.WIDTH / curves.HEIGHT if kind.name == "curves" else 1.0


def caption(kind: SampleKind, sizes: Mapping[str, int]) -> str:
    """One sentence on how a sample is drawn; empty for images, which need none.

    Examples
    --------
    >>> caption(SampleKind("curves", ("action", "horizon")), {"horizon": 16, "action": 7})
    'A line for each action, over horizon.'
    >>> caption(SampleKind("point", ("axis",)), {"axis": 5})
    'Axes 0 and 1 of 5: to the right and upwards. Grey: the other samples.'
    """
    if kind.name == "video":
        count, shown = sizes["frame"], pixels.shown_frames(sizes["frame"])
        every = len(shown) == count
        return f"All {count} frames." if every else f"Frames {', '.join(map(str, shown))} of 0 to {count - 1}."
    if kind.name == "curves":
        return _of_curves(kind, sizes)
    if kind.name == "point":
        return f"{_of_axes(sizes['axis'], 'sample')} Grey: the other samples."
    return _of_axes(sizes["axis"], "point") if kind.name == "points" else ""


def limit_text(kind: SampleKind, name: str) -> str:
    """What the limit of a tensor's tiles means, with ``{}`` in its place; empty where a bar of colours says it."""
    if kind.name == "curves":
        return "up to ±{}"
    if kind.name in ("point", "points"):
        return "longest arrow: {}" if name in MAPS else "up to ±{}"
    return ""


def line_names(kind: SampleKind, sizes: Mapping[str, int]) -> dict[str, str]:
    """Names of the lines of curves, each with its colour; none where there is one line, or no curves."""
    if kind.name != "curves" or len(kind.dims) < 2:
        return {}
    dim = kind.dims[0]
    names = (f"{dim} {number}" for number in range(sizes[dim]))
    return dict(zip(names, curves.LINES, strict=False))


def _of_curves(kind: SampleKind, sizes: Mapping[str, int]) -> str:
    *line, along = kind.dims
    if not line:
        return f"One line over {along}."
    count, most = sizes[line[0]], len(curves.LINES)
    if count > most:
        return f"A line for each of the first {most} of {count} over {line[0]}, along {along}."
    return f"A line for each {line[0]}, over {along}."


def _of_axes(count: int, what: str) -> str:
    if count == 1:
        return f"Axis 0 to the right, a row for each {what}."
    if count == 2:
        return "Axis 0 to the right, axis 1 upwards."
    return f"Axes 0 and 1 of {count}: to the right and upwards."
