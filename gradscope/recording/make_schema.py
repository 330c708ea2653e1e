"""The schema of a store for the probes that are recorded."""

from collections.abc import Sequence
from typing import Any

from gradscope.errors import GradscopeError, one_of, whole_number
from gradscope.store import Array, Coordinate, Grid, Schema
from gradscope.store.dims import PICTURE_DIMS
from probes import TENSOR, FiniteFraction, Probe, Variable


def with_finite_fraction(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """The probes, with `FiniteFraction` first: it is always measured."""
    return (FiniteFraction(), *(p for p in probes if not isinstance(p, FiniteFraction)))


def make_schema(
    grid: Grid,
    probes: Sequence[Probe],
    *,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: Any = "none",
    picture_shape: tuple[int, ...] | None = None,
) -> Schema:
    """The schema with the arrays that these probes need, and the final samples.

    Parameters
    ----------
    grid
        Coordinates of the run.
    probes
        What is measured.
    tensor_samples
        Number of samples, from the first, whose tensors are kept.
    tensor_every
        Interval in timesteps at which tensors are kept, from the first.
    dtype
        Data type of tensors: ``float32``, or ``float16`` with one binary exponent per sample and timestep.
    codec
        Compression of tensors: ``none`` or ``lz4``.
    picture_shape
        Channel, height and width of the decoded final samples of a latent model; None: there are none.

    Raises
    ------
    GradscopeError
        An option has an unknown value, or two probes record a variable of the same name.
    """
    tensor_samples, tensor_every = check_options(tensor_samples, tensor_every, dtype, codec)
    arrays: list[Array] = []
    coords: dict[str, object] = {}
    sample = grid.sample_names
    for variable in (v for probe in probes for v in probe.variables):
        if variable.name in (array.name for array in arrays):
            raise GradscopeError(f"probes: two of them record {variable.name!r}")
        for dim, coordinate in variable.coords.items():
            if coords.setdefault(dim, coordinate) != coordinate:
                raise GradscopeError(f"probes: {variable.name!r} has other values along {dim!r} than another variable")
        arrays += _arrays(variable, dtype, sample)
    about = {"long_name": "final sample", "units": "1", "equation": "x_0"}
    arrays.append(Array("image", "final", about, dims=sample))
    if picture_shape is not None:
        decoded = {"long_name": "decoded final sample", "units": "1", "equation": "decoder(x_0)"}
        sizes = dict(zip(PICTURE_DIMS, picture_shape, strict=True))
        arrays.append(Array("picture", "final", decoded, dims=PICTURE_DIMS, sizes=sizes))
    return Schema(grid, tuple(arrays), tensor_samples, tensor_every, codec)


def check_options(tensor_samples: Any, tensor_every: Any, dtype: Any, codec: Any) -> tuple[int, int]:
    """Raise GradscopeError if an option of `make_schema` has an unknown value; return the two numbers."""
    for key, value, known in (("dtype", dtype, ("float32", "float16")), ("codec", codec, ("none", "lz4"))):
        if value not in known:
            raise GradscopeError(f"{key}: got {value!r}; {one_of(value, known)}")
    return whole_number(tensor_samples, "tensor_samples"), whole_number(tensor_every, "tensor_every", least=1)


def _arrays(variable: Variable, dtype: str, sample: tuple[str, ...]) -> list[Array]:
    """The array of a variable and, for a float16 tensor, that of its exponents. `sample`: the sample's dimensions."""
    attributes: dict[str, Any] = {
        "long_name": variable.long_name,
        "units": variable.units,
        "equation": variable.equation,
    }
    flags = {"logarithmic": variable.logarithmic, "on_a_grid": variable.on_a_grid}
    attributes |= {key: 1 for key, is_so in flags.items() if is_so}
    bounds = {"valid_min": variable.low, "valid_max": variable.high}
    attributes |= {key: value for key, value in bounds.items() if value is not None}
    coords = {dim: Coordinate(c.values, c.long_name, c.units) for dim, c in variable.coords.items()}
    dims = sample if variable.dims == TENSOR else variable.dims
    shape = (dims, variable.sizes, coords)
    if not set(dims) >= set(sample):
        return [Array(variable.name, "scalar", attributes, variable.dtype, *shape)]
    if dtype == "float32":
        return [Array(variable.name, "tensor", attributes, "float32", *shape)]
    exponent = {
        "long_name": f"binary exponent of {variable.name}",
        "units": "1",
        "equation": f"{variable.name} = stored value * 2**{variable.name}_exponent",
    }
    attributes["equation"] += f"; times 2**-{variable.name}_exponent"
    return [
        Array(variable.name, "tensor", attributes, "float16", *shape),
        Array(f"{variable.name}_exponent", "scalar", exponent, "int16"),
    ]
