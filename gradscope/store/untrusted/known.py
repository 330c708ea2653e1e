"""Check that the arrays of a store fit together: their dimensions, and the kinds of those that are read by name."""

from collections.abc import Iterable, Mapping
from math import prod

from gradscope.errors import GradscopeError
from gradscope.store.dims import CELL_DIMS, OF_SAMPLES, OF_TIMESTEPS, PICTURE_DIMS, REPEAT
from gradscope.store.untrusted.arrays import Array
from gradscope.text import short
from probes.catalogue import CATALOGUE
from probes.variable import TENSOR

_TENSOR_BYTES, _OTHER_BYTES = 2**48, 2**36  # of an array over a sample's dimensions, and of any other
_COORDINATE_VALUES = 10**7  # coordinates are read when a store is opened
_INTEGER, _FLOAT = ("int", "uint"), ("float",)
_TENSORS = tuple(row.name for row in CATALOGUE.values() if row.dims == TENSOR)
_SCALARS = {row.name: _INTEGER if row.dtype.startswith("int") else _FLOAT for row in CATALOGUE.values() if not row.dims}
_ENDINGS = {"_interval": ("bound",), "_replicates": ("replicate",)}
_NEEDED = ("sample", "timestep", "label", "written")
_Dims = tuple[str, ...]


def check(arrays: Mapping[str, Array], cell: Iterable[str], sample: Iterable[str], where: str) -> None:
    """Raise GradscopeError unless arrays, by name, fit together; `cell` and `sample` name the dimensions of these."""
    cell, sample = tuple(cell), tuple(sample)
    if missing := [name for name in (*cell, *_NEEDED) if name not in arrays]:
        raise GradscopeError(f"{where}: it lacks {', '.join(missing)}")
    step = (*cell, "sample", "timestep", *((REPEAT,) if REPEAT in arrays["written"].dims else ()))
    known, lengths = _known(cell, sample, step), dict[str, int]()
    for name, array in arrays.items():
        about = _misfit(name, array, sample, lengths) or _unlike(name, array, arrays, known, step)
        if about:
            raise GradscopeError(f"{where}, array {name}: {about}")


def _misfit(name: str, array: Array, sample: _Dims, lengths: dict[str, int]) -> str | None:
    """What is wrong with the array's lengths; those of other arrays are in `lengths`, which gets its own."""
    for dim, length in zip(array.dims, array.shape, strict=True):
        if lengths.setdefault(dim, length) != length:
            return f"{short(dim)} has length {length}, in another array {lengths[dim]}"
    most = _TENSOR_BYTES if set(sample) <= set(array.dims) else _OTHER_BYTES
    size = prod(array.shape) * array.itemsize
    if size > most or (array.dims == (name,) and array.shape[0] > _COORDINATE_VALUES):
        return f"shape {short(array.shape)} is too large to be read"
    return None


def _known(cell: _Dims, sample: _Dims, step: _Dims) -> dict[str, tuple[_Dims, _Dims]]:
    """Dimensions and kinds of elements of the arrays that gradscope reads by name."""
    final = (*cell, "sample")
    return {
        **{name: ((name,), ("string",)) for name in (*CELL_DIMS[:3], "class", "judge_class", "bound")},
        "guidance_scale": (("guidance_scale",), (*_FLOAT, *_INTEGER)),
        **{name: (("sample",), _INTEGER) for name in ("sample", *OF_SAMPLES)},
        "timestep": (("timestep",), (*_INTEGER, *_FLOAT)),
        **{name: (("timestep",), _INTEGER if name == "step" else _FLOAT) for name in OF_TIMESTEPS},
        "written": (step, ("uint",)),
        **{name: ((*step, *sample), _FLOAT) for name in _TENSORS},
        **{f"{name}_exponent": (step, ("int",)) for name in _TENSORS},
        **{name: (step, kinds) for name, kinds in _SCALARS.items()},
        "image": ((*final, *sample), _FLOAT),
        "picture": ((*final, *PICTURE_DIMS), _FLOAT),
        **{f"{name}_prediction": (final, ("int",)) for name in ("own", "judge")},
    }


def _unlike(
    name: str, array: Array, arrays: Mapping[str, Array], known: Mapping[str, tuple[_Dims, _Dims]], step: _Dims
) -> str | None:
    """How the array differs from what its name says."""
    dims, kind = array.dims, array.data_type.rstrip("0123456789")
    wanted, kinds = known.get(name, (dims, (kind,)))
    gone = {dim for dim in step if dim in arrays and not arrays[dim].dims}  # one value was selected
    there = tuple(dim for dim in step if dim not in gone)
    if name in dims:  # a coordinate of a dimension
        wanted = (name,)
    elif name not in known and "timestep" in dims and dims != ("timestep",):
        wanted = (*there, *dims[len(there) :])
    elif name.endswith("_floor"):
        wanted = ()
    for ending, own in _ENDINGS.items():
        if name.endswith(ending) and (whole := arrays.get(name.removesuffix(ending))):
            wanted, kinds = (*whole.dims, *own), _FLOAT
    whole = arrays.get(name.removesuffix("_exponent"))
    if name.endswith("_exponent") and whole and "timestep" in whole.dims:
        wanted, kinds = there, ("int",)
    wanted = tuple(dim for dim in wanted if dim not in gone)
    if dims != wanted:
        return f"its dimensions are {short(list(dims))}, wanted: {list(wanted)}"
    if kind not in kinds:
        return f"it holds {kind}, wanted: {' or '.join(kinds)}"
    return None
