"""The grid of a run: cells, samples and timesteps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gradscope.errors import GradscopeError
from gradscope.store.dims import CELL_DIMS, REPEAT, names_of_sample
from gradscope.text import check_name

OF_TIMESTEPS = ("step", "alphas_cumprod", "sigma", "signal", "noise", "log_snr")
OF_SAMPLES = ("label", "seed")
COORDINATES = (*CELL_DIMS, "sample", *OF_SAMPLES, "timestep", *OF_TIMESTEPS)
AUXILIARY = " ".join((*OF_TIMESTEPS, *OF_SAMPLES))
"""The attribute `coordinates`: those that are not along a dimension of their own."""


@dataclass(frozen=True)
class Grid:
    """Coordinates of a run: cells, samples, timesteps and a sample's shape.

    Raises
    ------
    GradscopeError
        A name cannot be shown in a line, or a dimension's name is taken.

    Examples
    --------
    >>> import numpy as np
    >>> grid = Grid(
    ...     classifier=("robust",), classifier_input=("x_t",), stabilizer=("none",), guidance_scale=(0.0, 0.5),
    ...     label=np.array([0, 1, 2]), seed=np.arange(3), timestep=np.array([999, 499]),
    ...     alphas_cumprod=np.array([0.01, 0.5]), sigma=np.array([0.9, 0.1]), sample_shape=(16, 7),
    ...     sample_dims=("horizon", "action"), batch_size=3,
    ... )
    >>> grid.cells, grid.sample_names
    ((1, 1, 1, 2), ('horizon', 'action'))
    """

    classifier: tuple[str, ...]
    classifier_input: tuple[str, ...]
    stabilizer: tuple[str, ...]
    guidance_scale: tuple[float, ...]
    label: np.ndarray
    """Target class of each sample, ``(samples,)``."""
    seed: np.ndarray
    """Seed of each sample's generator, ``(samples,)``."""
    timestep: np.ndarray
    """One for each evaluation of the denoiser, in sampling order, ``(timesteps,)``: whole numbers or not."""
    alphas_cumprod: np.ndarray
    sigma: np.ndarray
    sample_shape: tuple[int, ...]
    """Channel, height, width of an image; or those of any other sample."""
    batch_size: int
    """Samples of a block."""
    sample_dims: tuple[str, ...] = ()
    """Names of the sample's dimensions; by default those of points, signals, images or videos, by their number."""
    further: Mapping[str, tuple[str | float, ...]] = field(default_factory=dict)
    """Dimensions of the cells beside the four, for example ``method``, with their values."""
    repeats: int = 0
    """At most so often a timestep is repeated; 0: stores have no dimension `repeat`."""
    signal: np.ndarray | None = None
    noise: np.ndarray | None = None
    """x_t = signal x_0 + noise epsilon, ``(timesteps,)``; by default the roots of alphas_cumprod and of 1 less that."""

    def __post_init__(self) -> None:
        for dim in ("classifier", "classifier_input", "stabilizer"):
            for name in getattr(self, dim):
                check_name(name, dim)
        for dim, values in self.further.items():
            if not str(dim).isidentifier() or dim in (*COORDINATES, *self.sample_names, REPEAT):
                raise GradscopeError(f"further: {dim!r} cannot name a dimension of the cells")
            for value in values:
                if isinstance(value, str):
                    check_name(value, str(dim))

    @property
    def cell_dims(self) -> tuple[str, ...]:
        return (*CELL_DIMS, *self.further)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the sample's dimensions."""
        return names_of_sample(self.sample_shape, self.sample_dims)

    def along(self, dim: str) -> tuple[str | float, ...]:
        """The values along one dimension of the cells."""
        return tuple(self.further[dim] if dim in self.further else getattr(self, dim))

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of values of each of `cell_dims`."""
        return tuple(len(self.along(dim)) for dim in self.cell_dims)

    @property
    def times(self) -> dict[str, np.ndarray]:
        """Coordinates along the timesteps, by name; ``log_snr`` is in nats."""
        signal = np.sqrt(self.alphas_cumprod) if self.signal is None else self.signal
        noise = np.sqrt(1 - np.asarray(self.alphas_cumprod)) if self.noise is None else self.noise
        with np.errstate(divide="ignore"):
            log_snr = 2 * (np.log(signal) - np.log(noise))
        values = (np.arange(self.timesteps), self.alphas_cumprod, self.sigma, signal, noise, log_snr)
        return {name: np.asarray(value) for name, value in zip(OF_TIMESTEPS, values, strict=True)}

    @property
    def samples(self) -> int:
        return len(self.label)

    @property
    def timesteps(self) -> int:
        return len(self.timestep)

    @property
    def block(self) -> int:
        """Samples of a block; the last one may have fewer."""
        return min(self.batch_size, self.samples)
