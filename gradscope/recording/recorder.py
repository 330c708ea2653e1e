"""From guided steps to a store: measure the probes, hand the values to the writer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from gradscope.errors import GradscopeError, NonFiniteGradient, one_of, whole_number
from gradscope.recording.measure import check_probes, measured
from gradscope.recording.ring import Ring
from gradscope.store import Array, Coordinate, Frame, Grid, Schema, StoreWriter
from gradscope.store.creation import refuse_path
from gradscope.store.locations.location import StorePath, locate
from gradscope.store.progress import finished
from gradscope.store.session import begin, recording
from probes import SOURCES, TENSOR, FiniteFraction, GuidedStep, Probe, Variable, attach_all

_NAMES = {
    "x_t": "x_t",
    "denoiser": "the denoiser's output",
    "guide": "the guide's logits",
    "gradient": "the gradient",
}
"""By `probes.SOURCES`, what is not finite first."""


class NonFinite(NamedTuple):
    """A sample of which something was not finite at a step."""

    cell: tuple[int, ...]
    sample: int
    timestep: float
    source: str
    """Where it came from: one of `probes.SOURCES`."""


def make_schema(
    grid: Grid,
    probes: Sequence[Probe],
    *,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: Any = "none",
) -> Schema:
    """The arrays that these probes need; tensors in ``dtype``, float16 with an exponent a sample and timestep.

    Raises
    ------
    GradscopeError
        An option is none that there is, or two probes record the same.
    """
    tensor_samples = whole_number(tensor_samples, "tensor_samples")
    tensor_every = whole_number(tensor_every, "tensor_every", least=1)
    for key, value, known in (("dtype", dtype, ("float32", "float16")), ("codec", codec, ("none", "lz4"))):
        if value not in known:
            raise GradscopeError(f"{key}: got {value!r}; {one_of(value, known)}")
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
    return Schema(grid, tuple(arrays), tensor_samples, tensor_every, codec)


def _arrays(variable: Variable, dtype: str, sample: tuple[str, ...]) -> list[Array]:
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


class BlockRecorder:
    """Records blocks into a store that is there.

    ``recorder.trajectory(cell, first_sample)`` is a step hook for one block of one cell; begun again, the block is
    recorded anew. Several processes may record into one store, each its own blocks.

    Parameters
    ----------
    where
        The store: a path, or the URL of one in an object store.
    schema
        Its arrays.
    probes
        What to measure, with `FiniteFraction` among them; see `with_finite_fraction`.
    stop_on_nonfinite
        Raise `NonFiniteGradient` at the step after the first gradient that is not finite, or at the end.
    durable
        Data are on the disk before their marker: for power failures, which this process's end is not.
    """

    def __init__(
        self,
        where: StorePath,
        schema: Schema,
        probes: Sequence[Probe],
        *,
        device: torch.device,
        stop_on_nonfinite: bool = False,
        durable: bool = False,
    ) -> None:
        self.location = locate(where)
        self.schema, self.probes = schema, tuple(probes)
        self.stop_on_nonfinite = stop_on_nonfinite
        self.nonfinite: list[NonFinite] = []
        self.ring = Ring(self._layout(), device)
        self.writer = StoreWriter(self.location, schema, self._inspect, durable)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            self.writer.close()
        except GradscopeError:
            if error is None:
                raise  # else the first error is the one to be told
        if error is None:
            self._refuse_nonfinite()

    def trajectory(self, cell: tuple[int, ...], first_sample: int) -> "Trajectory":
        samples = min(self.schema.grid.block, self.schema.grid.samples - first_sample)
        self.writer.forget(cell, first_sample, samples)
        return Trajectory(self, cell, first_sample)

    def emit(
        self, cell: tuple[int, ...], first_sample: int, step: int, values: Mapping[str, Tensor], repeat: int = 0
    ) -> None:
        """Hand one step's values to the writer."""
        self.writer.check()
        self._refuse_nonfinite()
        kept = self.schema.kept_samples(first_sample, self.schema.grid.block)
        keeps = self.schema.keeps_tensor(step) and kept
        tensors = {array.name for array in self.schema.tensors}
        chosen: dict[str, Tensor] = {}
        for name, value in values.items():
            if name not in tensors:
                chosen[name] = value
                continue
            scaled = value
            if f"{name}_exponent" in self._names:
                chosen[f"{name}_exponent"], scaled = _exponent(value)
            if keeps:
                chosen[name] = scaled[:kept]
        slot = self.ring.put(chosen)
        release = partial(self.ring.release, slot)
        self.writer.submit(Frame(cell, first_sample, step, slot.arrays, slot.wait, release, repeat))

    def describe(self, found: NonFinite) -> str:
        """What was not finite where, in words."""
        grid = self.schema.grid
        cell = ", ".join(f"{dim} {grid.along(dim)[i]}" for dim, i in zip(grid.cell_dims, found.cell, strict=True))
        what = _NAMES[found.source]
        return f"{what} not finite at timestep {found.timestep}, sample {found.sample}, {cell}"

    def _refuse_nonfinite(self) -> None:
        if self.stop_on_nonfinite and self.nonfinite:
            raise NonFiniteGradient(self.describe(self.nonfinite[0]))

    @property
    def _names(self) -> set[str]:
        return {array.name for array in self.schema.arrays}

    def _layout(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        kept = self.schema.kept_samples(0, self.schema.grid.block)
        return {
            array.name: (
                (kept if array.kind == "tensor" else self.schema.grid.block, *self.schema.extra(array)),
                getattr(torch, array.dtype),
            )
            for array in self.schema.arrays
        }

    def _inspect(self, frame: Frame) -> None:
        sources = frame.arrays["nonfinite_source"]
        for i in np.flatnonzero(sources):
            source, sample = SOURCES[int(sources[i])], frame.first_sample + int(i)
            if source == "x_t" and any(f.sample == sample and f.cell == frame.cell for f in self.nonfinite):
                continue  # what came before is the reason, and reported
            timestep = self.schema.grid.timestep[frame.step].item()
            self.nonfinite.append(NonFinite(frame.cell, sample, timestep, source))


class Recorder(BlockRecorder):
    """Makes a store and records the trajectories of a grid into it, or continues one.

    Whoever has a sampler of their own calls ``recorder.trajectory(cell, first_sample)`` with a `GuidedStep` after each
    of its steps. The store is made when the first step is measured: models and probes that do not work leave none. From
    then on no other process can record into it; left, it says how it ended.

    Parameters
    ----------
    path
        The store to be made: a path, or the URL of one in an object store.
    grid
        Coordinates of the run.
    probes
        What to measure; the share of finite gradient elements is always measured.
    attributes
        Further attributes of the store.
    overwrite
        Replace a store that is there.
    resume
        Go on with a store of this very grid and these probes; `finished` says what is there.
    stop_on_nonfinite, durable
        See `BlockRecorder`.
    tensor_samples, tensor_every, dtype, codec
        See `make_schema`.

    Raises
    ------
    GradscopeError
        Where the store cannot be made, continued or written.

    Examples
    --------
    >>> with Recorder("own.zarr", grid, [Norm("gradient")], device=torch.device("cpu")) as recorder:
    ...     record = recorder.trajectory(cell=(0, 0, 0, 0), first_sample=0)
    ...     for step in steps:  # a `GuidedStep` each
    ...         record(step)
    """

    def __init__(
        self,
        path: StorePath,
        grid: Grid,
        probes: Sequence[Probe],
        *,
        device: torch.device,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        stop_on_nonfinite: bool = False,
        durable: bool = False,
        tensor_samples: int = 64,
        tensor_every: int = 1,
        dtype: str = "float32",
        codec: str = "none",
    ) -> None:
        check_probes(probes)
        self.location, self.probes = locate(path), with_finite_fraction(probes)
        schema = make_schema(
            grid, self.probes, tensor_samples=tensor_samples, tensor_every=tensor_every, dtype=dtype, codec=codec
        )
        self.schema = replace(schema, sharded=self.location.path is None)
        self._make = partial(begin, self.location, self.schema, attributes or {}, overwrite, resume)
        self._options: dict[str, Any] = {"device": device, "stop_on_nonfinite": stop_on_nonfinite, "durable": durable}
        self._session = ExitStack()
        self._begun = False
        if resume:
            self._begin()
        else:
            refuse_path(self.location, overwrite)

    def _begin(self) -> None:
        self._make()
        with ExitStack() as stack:
            stack.enter_context(recording(self.location, "resume=True goes on with them"))
            super().__init__(self.location, self.schema, self.probes, **self._options)
            stack.push(super().__exit__)
            self._session = stack.pop_all()
        self._begun = True

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Which blocks are recorded, ``(*cells, blocks)``."""
        if self._begun:
            return finished(self.location)
        grid = self.schema.grid
        return np.zeros((*grid.cells, -(-grid.samples // grid.block)), dtype=bool)

    def trajectory(self, cell: tuple[int, ...], first_sample: int) -> "Trajectory":
        return super().trajectory(cell, first_sample) if self._begun else Trajectory(self, cell, first_sample)

    def emit(
        self, cell: tuple[int, ...], first_sample: int, step: int, values: Mapping[str, Tensor], repeat: int = 0
    ) -> None:
        if not self._begun:
            self._begin()
        super().emit(cell, first_sample, step, values, repeat)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._session.__exit__(kind, error, trace)


def with_finite_fraction(probes: Sequence[Probe]) -> tuple[Probe, ...]:
    """The probes with the share of finite gradient elements, which is always measured, first."""
    return (FiniteFraction(), *(p for p in probes if not isinstance(p, FiniteFraction)))


class Trajectory:
    """Step hook that records one block of one cell."""

    def __init__(self, recorder: BlockRecorder, cell: tuple[int, ...], first_sample: int) -> None:
        self._recorder, self._cell, self._first_sample = recorder, cell, first_sample
        self._states = [probe.init() for probe in recorder.probes]

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """See `probes.Probe.attach`; a `GuidedSampler` enters it by itself."""
        return attach_all(self._recorder.probes, modules)

    def __call__(self, step: GuidedStep) -> None:
        if step.step == 0 or step.repeat:
            self._refuse_other_grid(step)
        values = measured(self._recorder.probes, step, self._states)
        if step.step == self._recorder.schema.grid.timesteps - 1 and step.prev_sample is not None:
            values["image"] = step.prev_sample
        self._recorder.emit(self._cell, self._first_sample, step.step, values, step.repeat)

    def _refuse_other_grid(self, step: GuidedStep) -> None:
        """Raise GradscopeError where a step is not of this block, or the guide lacks a label of the grid."""
        grid = self._recorder.schema.grid
        shape = (min(grid.block, grid.samples - self._first_sample), *grid.sample_shape)
        if step.x_t.shape != shape:
            got = tuple(step.x_t.shape)
            raise GradscopeError(f"the steps of this block have x_t of shape {shape} by the grid, got {got}")
        if step.repeat >= max(1, grid.repeats):
            raise GradscopeError(
                f"step {step.step} is repeated, repeat {step.repeat}; the grid has repeats={grid.repeats}"
            )
        if step.logits is not None and not grid.label.max() < (classes := step.logits.shape[1]):
            raise GradscopeError(f"labels: the classifier has classes 0 to {classes - 1}, got {grid.label.max()}")


def _exponent(x: Tensor) -> tuple[Tensor, Tensor]:
    """Binary exponent of each sample's largest magnitude, ``(n,)`` int16, and x scaled by its inverse, below 1."""
    peak = x.flatten(1).abs().amax(dim=1)
    exponent = torch.frexp(torch.where(peak.isfinite(), peak, 1)).exponent
    scale = torch.exp2(-exponent.double()).view(-1, *[1] * (x.ndim - 1))  # beyond float32's range for tiny gradients
    return exponent.to(torch.int16), (x.double() * scale).to(x.dtype)
