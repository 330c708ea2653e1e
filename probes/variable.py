"""What a probe declares of the values it yields. No torch here."""

from collections.abc import Mapping
from dataclasses import dataclass, field

IMAGE_DIMS = ("channel", "height", "width")
TENSOR = ("...",)
"""The dimensions of a full tensor: those of a sample, whatever they are."""


@dataclass(frozen=True)
class Coordinate:
    """Values along a dimension of a probe's own."""

    values: tuple[str, ...] | tuple[float, ...]
    long_name: str
    units: str = "1"


@dataclass(frozen=True)
class Variable:
    """A quantity that a probe yields, with one row a sample: a row of the table of diagnostics.

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
    """Dimensions besides sample and timestep; `TENSOR` (or, of images, `IMAGE_DIMS`) marks a full tensor."""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Lengths of the dimensions in `dims` that are neither the sample's nor in `coords`."""
    coords: Mapping[str, Coordinate] = field(default_factory=dict)
    """By dimension."""
    dtype: str = "float32"
    probe: str = ""
    """The entry under ``probes`` that records it; empty for those of a user's own."""
    logarithmic: bool = False
    """It ranges over orders of magnitude: drawn on a logarithmic axis."""
    low: float | None = None
    high: float | None = None
    """The least and the largest value that it can have; None: no bound."""
    on_a_grid: bool = False
    """It is defined at some timesteps alone; its line leads from one of these to the next."""
    headline: bool = False
    """It is among the first to be looked at: the report draws it, the dashboard begins with it."""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    """By failure signature: the value that separates a fault from a healthy cell."""
