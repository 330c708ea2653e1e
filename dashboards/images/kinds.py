"""How each kind of sample is drawn."""

from collections.abc import Callable

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


def draw(kind: SampleKind, tensors: Tensors) -> dict[str, Drawn]:
    """The tiles of tensors by name, with their limits; a tensor has the dimensions of `kind`, in this order."""
    return _TILES[kind.name](tensors)


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
