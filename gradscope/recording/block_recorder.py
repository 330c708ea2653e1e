"""Record blocks of samples: measure each step with the probes and hand the values to the writer."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from gradscope.errors import GradscopeError, NonFiniteGradient
from gradscope.recording.measure import Common, measured
from gradscope.recording.ring import Ring
from gradscope.store import Frame, Schema, StoreWriter
from gradscope.store.locations.location import StorePath, locate
from probes import SOURCES, GuidedStep, Probe, attach_all

_NAMES = {
    "x_t": "x_t",
    "denoiser": "the denoiser's output",
    "guide": "the guide's output",
    "gradient": "the gradient",
}
"""Names of `probes.SOURCES` for messages."""


class NonFinite(NamedTuple):
    """A sample with a value that is not finite, at one step."""

    cell: tuple[int, ...]
    sample: int
    timestep: float
    source: str
    """Where such a value appears first: one of `probes.SOURCES`."""


class BlockRecorder:
    """Records blocks into an existing store.

    ``recorder.trajectory(cell, first_sample)`` returns a step hook for one block of one cell; calling it again records
    the block again. Several processes may record into one store if each has its own blocks.

    Parameters
    ----------
    where
        The store: a path, or the URL of one in an object store.
    schema
        Its arrays.
    probes
        What to measure, `FiniteFraction` included; see `with_finite_fraction`.
    device
        The sampler's device.
    stop_on_nonfinite
        Raise `NonFiniteGradient` at the step after the first gradient that is not finite, or at the end.
    durable
        Write data to disk before their marker (fsync), so that a power failure leaves a consistent store, if it was
        created so, too. A killed process always does.

    Attributes
    ----------
    nonfinite : list of NonFinite
        The values that were not finite so far.
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
                raise  # otherwise the first error propagates
        if error is None:
            self._refuse_nonfinite()

    def trajectory(self, cell: tuple[int, ...], first_sample: int, common: Common | None = None) -> "Trajectory":
        """A step hook that records the block of one cell that begins at a sample.

        Cells that have one gradient, and whose steps come in turns, may get one `Common`.
        """
        samples = min(self.schema.grid.block, self.schema.grid.samples - first_sample)
        self.writer.forget(cell, first_sample, samples)
        return Trajectory(self, cell, first_sample, common)

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
        """A message that says what was not finite, and where."""
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
        """Note samples with values that are not finite; the writer calls this in its thread."""
        sources = frame.arrays["nonfinite_source"]
        for i in np.flatnonzero(sources):
            source, sample = SOURCES[int(sources[i])], frame.first_sample + int(i)
            if source == "x_t" and any(f.sample == sample and f.cell == frame.cell for f in self.nonfinite):
                continue  # follows from an earlier step, which is noted
            timestep = self.schema.grid.timestep[frame.step].item()
            self.nonfinite.append(NonFinite(frame.cell, sample, timestep, source))


class Trajectory:
    """Step hook that records one block of one cell."""

    def __init__(
        self, recorder: BlockRecorder, cell: tuple[int, ...], first_sample: int, common: Common | None = None
    ) -> None:
        self._recorder, self._cell, self._first_sample, self._common = recorder, cell, first_sample, common
        self._states = [probe.init() for probe in recorder.probes]

    def attach(self, modules: Mapping[str, nn.Module]) -> AbstractContextManager[None]:
        """See `probes.Probe.attach`; a `GuidedSampler` enters the context itself."""
        return attach_all(self._recorder.probes, modules)

    def __call__(self, step: GuidedStep) -> None:
        if step.step == 0 or step.repeat:
            self._refuse_other_grid(step)
        values = self._measured(step)
        if step.step == self._recorder.schema.grid.timesteps - 1 and step.prev_sample is not None:
            values["image"] = step.prev_sample
            if step.picture is not None and "picture" in self._recorder.schema.names:
                values["picture"] = step.picture
        self._recorder.emit(self._cell, self._first_sample, step.step, values, step.repeat)

    def _measured(self, step: GuidedStep) -> dict[str, Tensor]:
        return measured(self._recorder.probes, step, self._states, self._common)

    def _refuse_other_grid(self, step: GuidedStep) -> None:
        """Raise GradscopeError if a step does not fit the grid, or the guide lacks a label of the grid."""
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
