"""From guided steps to a store: measure the probes, hand the values to the writer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError, NonFiniteGradient
from gradscope.store import Array, Coordinate, Frame, Grid, Schema, StoreWriter, create, set_attributes
from gradscope.store.schema import CELL_DIMS
from gradscope.transfer import Ring
from probes import IMAGE_DIMS, FiniteFraction, GuidedStep, Probe, Variable, attach_all, check_needs

_IMAGE = Array("image", "final", {"long_name": "final sample", "units": "1", "equation": "x_0"}, dims=IMAGE_DIMS)


class NonFinite(NamedTuple):
    """A sample whose gradient was not finite at a step."""

    cell: tuple[int, ...]
    sample: int
    timestep: int


def make_schema(
    grid: Grid,
    probes: Sequence[Probe],
    *,
    tensor_samples: int = 64,
    tensor_every: int = 1,
    dtype: str = "float32",
    codec: Any = "none",
) -> Schema:
    """The arrays that these probes need; tensors in ``dtype``, float16 with an exponent a sample and timestep."""
    arrays: list[Array] = []
    coords: dict[str, object] = {}
    for variable in (v for probe in probes for v in probe.variables):
        if variable.name in (array.name for array in arrays):
            raise GradscopeError(f"probes: two of them record {variable.name!r}")
        for dim, coordinate in variable.coords.items():
            if coords.setdefault(dim, coordinate) != coordinate:
                raise GradscopeError(f"probes: {variable.name!r} has other values along {dim!r} than another variable")
        arrays += _arrays(variable, dtype)
    return Schema(grid, (*arrays, _IMAGE), tensor_samples, tensor_every, codec)


def _arrays(variable: Variable, dtype: str) -> list[Array]:
    attributes = {"long_name": variable.long_name, "units": variable.units, "equation": variable.equation}
    coords = {dim: Coordinate(c.values, c.long_name, c.units) for dim, c in variable.coords.items()}
    shape = (variable.dims, variable.sizes, coords)
    if not set(variable.dims) >= set(IMAGE_DIMS):
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


class Recorder:
    """Records trajectories of a grid into a new store.

    ``recorder.trajectory(cell, first_sample)`` is a step hook for one block of one cell. Whoever has a sampler of their
    own calls it with a `GuidedStep` after each of its steps.

    Parameters
    ----------
    path
        The store to be made.
    grid
        Coordinates of the run.
    probes
        What to measure; the share of finite gradient elements is always measured.
    attributes
        Further attributes of the store.
    stop_on_nonfinite
        Raise `NonFiniteGradient` at the step after the first gradient that is not finite.
    tensor_samples, tensor_every, dtype, codec
        See `make_schema`.

    Raises
    ------
    GradscopeError
        Where the store cannot be made or written.
    """

    def __init__(
        self,
        path: str | Path,
        grid: Grid,
        probes: Sequence[Probe],
        *,
        device: torch.device,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        stop_on_nonfinite: bool = False,
        tensor_samples: int = 64,
        tensor_every: int = 1,
        dtype: str = "float32",
        codec: str = "none",
    ) -> None:
        self.path = Path(path)
        self.probes = (FiniteFraction(), *(p for p in probes if not isinstance(p, FiniteFraction)))
        self.schema = make_schema(
            grid, self.probes, tensor_samples=tensor_samples, tensor_every=tensor_every, dtype=dtype, codec=codec
        )
        self.stop_on_nonfinite = stop_on_nonfinite
        self.nonfinite: list[NonFinite] = []
        create(self.path, self.schema, {**(attributes or {}), "status": "recording"}, overwrite)
        self.ring = Ring(self._layout(), device)
        self.writer = StoreWriter(self.path, self.schema, self._inspect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        try:
            self.writer.close()
        finally:
            set_attributes(self.path, {"status": "complete" if error is None else "interrupted"})

    def trajectory(self, cell: tuple[int, ...], first_sample: int) -> "Trajectory":
        return Trajectory(self, cell, first_sample)

    def emit(self, cell: tuple[int, ...], first_sample: int, step: int, values: Mapping[str, Tensor]) -> None:
        """Hand one step's values to the writer."""
        self.writer.check()
        if self.stop_on_nonfinite and self.nonfinite:
            raise NonFiniteGradient(self.describe(self.nonfinite[0]))
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
        self.writer.submit(Frame(cell, first_sample, step, slot.arrays, slot.wait, lambda: self.ring.release(slot)))

    def describe(self, found: NonFinite) -> str:
        """Where a gradient was not finite, in words."""
        grid = self.schema.grid
        cell = ", ".join(f"{dim} {getattr(grid, dim)[i]}" for dim, i in zip(CELL_DIMS, found.cell, strict=True))
        return f"gradient not finite at timestep {found.timestep}, sample {found.sample}, {cell}"

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
        for i in np.flatnonzero(frame.arrays["finite_fraction"] < 1):
            timestep = int(self.schema.grid.timestep[frame.step])
            self.nonfinite.append(NonFinite(frame.cell, frame.first_sample + int(i), timestep))


class Trajectory:
    """Step hook that records one block of one cell."""

    def __init__(self, recorder: Recorder, cell: tuple[int, ...], first_sample: int) -> None:
        self._recorder, self._cell, self._first_sample = recorder, cell, first_sample
        self._states = [probe.init() for probe in recorder.probes]

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """See `probes.Probe.attach`; a `GuidedSampler` enters it by itself."""
        return attach_all(self._recorder.probes, modules)

    def __call__(self, step: GuidedStep) -> None:
        values: dict[str, Tensor] = {}
        for i, probe in enumerate(self._recorder.probes):
            check_needs(probe, step)
            measured, self._states[i] = probe.measure(step, self._states[i])
            values |= measured
        if step.step == self._recorder.schema.grid.timesteps - 1 and step.prev_sample is not None:
            values["image"] = step.prev_sample
        self._recorder.emit(self._cell, self._first_sample, step.step, values)


def _exponent(x: Tensor) -> tuple[Tensor, Tensor]:
    """Binary exponent of each sample's largest magnitude, ``(n,)`` int16, and x scaled by its inverse, below 1."""
    peak = x.flatten(1).abs().amax(dim=1)
    exponent = torch.frexp(torch.where(peak.isfinite(), peak, 1)).exponent
    scale = torch.exp2(-exponent.double()).view(-1, *[1] * (x.ndim - 1))  # beyond float32's range for tiny gradients
    return exponent.to(torch.int16), (x.double() * scale).to(x.dtype)
