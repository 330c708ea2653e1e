"""Record guided steps of any sampler into a store."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradscope.recording.block_recorder import BlockRecorder, Trajectory
from gradscope.recording.make_schema import make_schema, with_finite_fraction
from gradscope.recording.measure import Common, check_probes
from gradscope.store import Grid
from gradscope.store.creation import refuse_path
from gradscope.store.locations.location import StorePath, locate
from gradscope.store.progress import finished
from gradscope.store.replacement import grow
from gradscope.store.session import begin, recording
from probes import Probe


class Recorder(BlockRecorder):
    """Creates a store, or resumes one, and records the trajectories of a grid into it. Use it as a context manager.

    For each block, a sampler of your own gets a hook from ``recorder.trajectory(cell, first_sample)`` and calls it with
    a `GuidedStep` after each step. The store is created when the first step has been measured, so models and probes
    that fail leave no store. From then on no other process can record into it. On exit the store's attribute ``status``
    is set to ``complete``, or to ``interrupted`` after an error.

    Parameters
    ----------
    path
        The new store: a path, or a URL in an object store.
    grid
        Coordinates of the run.
    probes
        What to measure. The share of finite gradient elements is always measured.
    device
        The sampler's device.
    attributes
        Further attributes of the store.
    overwrite
        Replace a store that exists at `path`.
    resume
        Resume a store of the same grid and probes; `finished` says which blocks it has.
    stop_on_nonfinite, durable
        See `BlockRecorder`.
    tensor_samples, tensor_every, dtype, codec, picture_shape
        See `make_schema`.

    Raises
    ------
    GradscopeError
        The store cannot be created, resumed or written.

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
        picture_shape: tuple[int, ...] | None = None,
    ) -> None:
        check_probes(probes)
        self.location, self.probes = locate(path), with_finite_fraction(probes)
        schema = make_schema(
            grid,
            self.probes,
            tensor_samples=tensor_samples,
            tensor_every=tensor_every,
            dtype=dtype,
            codec=codec,
            picture_shape=picture_shape,
        )
        self.schema = replace(schema, sharded=self.location.path is None)
        self._attributes, self._overwrite, self._resume = dict(attributes or {}), overwrite, resume
        self._options: dict[str, Any] = {"device": device, "stop_on_nonfinite": stop_on_nonfinite, "durable": durable}
        self._session = ExitStack()
        self._begun = False
        if resume:
            self._begin()
        else:
            refuse_path(self.location, overwrite)

    def _begin(self) -> None:
        durable = self._options["durable"]
        begin(self.location, self.schema, self._attributes, self._overwrite, self._resume, durable)
        with ExitStack() as stack:
            stack.enter_context(recording(self.location, "continue with resume=True"))
            super().__init__(self.location, self.schema, self.probes, **self._options)
            stack.push(super().__exit__)
            self._session = stack.pop_all()
        self._begun = True

    @property
    def begun(self) -> bool:
        """Whether the store exists: a step was measured."""
        return self._begun

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Whether each block is recorded, ``(*cells, blocks)``, bool."""
        if self._begun:
            return finished(self.location)
        grid = self.schema.grid
        return np.zeros((*grid.cells, -(-grid.samples // grid.block)), dtype=bool)

    def grow(self, grid: Grid, attributes: Mapping[str, Any] | None = None) -> None:
        """Add cells or samples to the store, and set attributes. Blocks that are being recorded go on.

        Parameters
        ----------
        grid
            The grid with further values at the end of the dimensions of cells, or further samples. Other coordinates
            may have other values. The timesteps' number and the largest block stay.
        attributes
            Attributes of the store to set.
        """
        self.schema = replace(self.schema, grid=grid)
        self._attributes |= attributes or {}
        if self._begun:
            grow(self.location, self.schema, attributes or {})
            self.writer.grow(self.schema)

    def final(self, cell: tuple[int, ...], first_sample: int, image: Tensor) -> None:
        """Record the final samples of a block, ``(n, *sample)``, if its last step did not give them."""
        self.writer.submit_final(cell, first_sample, {"image": image.detach().float().cpu().numpy()})

    def trajectory(self, cell: tuple[int, ...], first_sample: int, common: Common | None = None) -> Trajectory:
        """A step hook that records the block of one cell that begins at a sample; call it with each `GuidedStep`."""
        made = super().trajectory if self._begun else partial(Trajectory, self)
        return made(cell, first_sample, common)

    def emit(
        self, cell: tuple[int, ...], first_sample: int, step: int, values: Mapping[str, Tensor], repeat: int = 0
    ) -> None:
        if not self._begun:
            self._begin()
        super().emit(cell, first_sample, step, values, repeat)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._session.__exit__(kind, error, trace)
