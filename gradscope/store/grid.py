"""The grid of a run: cells, samples and timesteps."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from gradscope.errors import GradscopeError, whole_number
from gradscope.store.dims import CELL_DIMS, OF_SAMPLES, OF_TIMESTEPS, TAKEN, names_of_sample
from gradscope.text import check_name

AUXILIARY = " ".join((*OF_TIMESTEPS, *OF_SAMPLES))
"""Value of the attribute `coordinates`: the coordinates that are not a dimension."""


@dataclass(frozen=True)
class Grid:
    """Coordinates of a run: cells, samples, timesteps and a sample's shape.

    A cell is one combination of classifier, classifier_input, stabilizer, guidance_scale and any further dimensions. A
    block is the set of samples that go through the sampler together.

    Raises
    ------
    GradscopeError
        A name cannot be shown on one line, the name of a dimension is taken, or a length does not fit the timesteps.

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
    """Diffusion time of each evaluation of the denoiser, in sampling order, ``(timesteps,)``; need not be whole."""
    alphas_cumprod: np.ndarray
    """Cumulative product of alphas, ``(timesteps,)``."""
    sigma: np.ndarray
    """Standard deviation of the DDPM posterior, ``(timesteps,)``."""
    sample_shape: tuple[int, ...]
    """Channel, height, width of an image, or the shape of any other sample."""
    batch_size: int
    """Largest number of samples of a block."""
    sample_dims: tuple[str, ...] = ()
    """Names of the sample's dimensions. By default their number decides: points, signals, images or videos."""
    further: Mapping[str, tuple[str | float, ...]] = field(default_factory=dict)
    """Further dimensions of cells, for example ``method``, with their values."""
    repeats: int = 0
    """Largest number of repetitions of a timestep; 0: the store has no dimension `repeat`."""
    repetitions: tuple[int, ...] = ()
    """How often each timestep is taken, ``(timesteps,)``; empty: that is not known."""
    signal: np.ndarray | None = None
    """Factor of x_0 in x_t = signal x_0 + noise epsilon, ``(timesteps,)``; default: sqrt(alphas_cumprod)."""
    noise: np.ndarray | None = None
    """Factor of epsilon in x_t, ``(timesteps,)``; default: sqrt(1 - alphas_cumprod)."""

    def __post_init__(self) -> None:
        for dim in ("classifier", "classifier_input", "stabilizer"):
            for name in getattr(self, dim):
                check_name(name, dim)
        whole_number(self.repeats, "repeats")
        for name in ("alphas_cumprod", "sigma", "signal", "noise"):
            values = getattr(self, name)
            if values is not None and np.shape(values) != (self.timesteps,):
                raise GradscopeError(
                    f"{name}: one number for each of {self.timesteps} timesteps, got {np.shape(values)}"
                )
        names = self.sample_names
        for dim, values in self.further.items():
            if not str(dim).isidentifier() or dim in TAKEN or dim in names:
                raise GradscopeError(f"further: {dim!r} cannot name a dimension of the cells")
            for value in values:
                if isinstance(value, str):
                    check_name(value, str(dim))

    @property
    def cell_dims(self) -> tuple[str, ...]:
        """Names of the dimensions of cells."""
        return (*CELL_DIMS, *self.further)

    @property
    def sample_names(self) -> tuple[str, ...]:
        """Names of the sample's dimensions."""
        return names_of_sample(self.sample_shape, self.sample_dims)

    def along(self, dim: str) -> tuple[str | float, ...]:
        """Values along one dimension of cells."""
        return tuple(self.further[dim] if dim in self.further else getattr(self, dim))

    @property
    def cells(self) -> tuple[int, ...]:
        """Number of values along each of `cell_dims`."""
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
        """Number of samples."""
        return len(self.label)

    @property
    def timesteps(self) -> int:
        """Number of timesteps."""
        return len(self.timestep)

    @property
    def block(self) -> int:
        """Samples of a block; the last block may have fewer."""
        return min(self.batch_size, self.samples)
