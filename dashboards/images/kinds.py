"""How each kind of sample is drawn."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dashboards.images import curves, pixels, planes
from dashboards.images.tensors import Drawn, Floats, Pixels, Tensors
from gradscope.store.sample_kind import SampleKind

_TILES: dict[str, Callable[[Tensors], dict[str, Drawn]]] = {
    "image": pixels.tiles,
    "video": pixels.video_tiles,
    "curves": curves.tiles,
    "point": planes.tiles,
    "points": planes.tiles,
}
_FINALS: dict[str, Callable[[Floats], Pixels]] = {
    "image": pixels.image,
    "video": pixels.video,
    "curves": curves.finals,
    "points": planes.finals,
}
_LIMITS: dict[str, Callable[[str, Floats, int | None], NDArray[np.float64]]] = {
    "image": pixels.limits,
    "video": pixels.video_limits,
    "curves": curves.limits,
    "point": planes.limits,
    "points": planes.limits,
}


def draw(kind: SampleKind, tensors: Tensors) -> dict[str, Drawn]:
    """The tiles of tensors by name, with their limits; a tensor has the dimensions of `kind`, in this order."""
    return _TILES[kind.name](tensors)


def limits(kind: SampleKind, name: str, tensor: Floats, channel: int | None) -> NDArray[np.float64]:
    """The limit of each row of a tensor ``(rows, *sample)`` by its own values, as `draw` has it."""
    return _LIMITS[kind.name](name, tensor, channel)


def shown_values(kind: SampleKind, name: str, tensor: Floats, channel: int | None) -> Floats:
    """The numbers that a tile shows: of images and videos those of their colours, of others all."""
    if kind.name == "video":
        return pixels.shown_of_video(name, tensor, channel)
    return pixels.shown_values(name, tensor, channel) if kind.name == "image" else tensor


def draw_finals(kind: SampleKind, samples: Floats, first: int, crowd: Floats | None) -> Pixels:
    """The tiles of final samples ``(n, *sample)``.

    Parameters
    ----------
    first
        Number of the first sample.
    crowd
        Of points: those of all samples, ``(samples, axis)``.
    """
    if kind.name == "point":
        return planes.finals(samples, first, crowd)
    return _FINALS[kind.name](samples)
