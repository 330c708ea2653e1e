"""Descriptions of the values that a probe yields. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

IMAGE_DIMS = ("channel", "height", "width")
TENSOR = ("...",)
"""Dimensions of a full tensor: all dimensions of a sample."""


@dataclass(frozen=True)
class Coordinate:
    """Values along a probe's own dimension.

    Examples
    --------
    >>> Coordinate(("classifier.0", "unet.mid_block"), "layer of the classifier or the denoiser").units
    '1'
    """

    values: tuple[str, ...] | tuple[float, ...]
    long_name: str
    units: str = "1"


@dataclass(frozen=True)
class Variable:
    """A quantity that a probe yields, with one value or array per sample: a row of the table of diagnostics.

    Examples
    --------
    >>> Variable("gradient_peak", "largest element of the gradient", "max |g_t|", logarithmic=True, low=0.0).units
    '1'
    """

    name: str
    long_name: str
    equation: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    """Dimensions besides sample and timestep; `TENSOR` (or, for images, `IMAGE_DIMS`) marks a full tensor."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of dimensions in `dims` that are neither a sample's nor in `coords`."""
    coords: Mapping[str, Coordinate] = field(default_factory=dict)
    """Values along dimensions in `dims`."""
    dtype: str = "float32"
    probe: str = ""
    """The entry under ``probes`` that records it; empty for a user's own probe."""
    logarithmic: bool = False
    """Whether it is drawn on a logarithmic axis: it covers orders of magnitude."""
    low: float | None = None
    """Smallest possible value; None: no bound."""
    high: float | None = None
    """Largest possible value; None: no bound."""
    on_a_grid: bool = False
    """Whether it is defined at some timesteps only; a plot connects these."""
    headline: bool = False
    """Whether the report draws it and the dashboard shows it first."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By failure signature: the value that separates faulty from healthy cells."""
