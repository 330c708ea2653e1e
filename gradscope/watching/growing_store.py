"""A store that grows: made at the first step, then longer along cells and samples."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradscope.errors import GradscopeError
from gradscope.recording.block_recorder import Trajectory
from gradscope.recording.measure import measured
from gradscope.recording.provenance import origin
from gradscope.recording.recorder import Recorder
from gradscope.sampling.process import Level
from gradscope.store import CELL_DIMS, Grid, set_attributes
from gradscope.store.schema import fill_value
from gradscope.watching.process import Process
from probes import NAMED, GuidedStep, Probe

_USUAL = (
    "gradient",
    "update",
    "x_t",
    "pred_original_sample",
    "norms",
    "cosines",
    "strength",
    "belief",
    "energy",
    "classifier_free",
    "fractions",
    "sensitivity",
    "spectrum",
)
"""Groups of probes that are recorded by default, as far as the loop shows what they need."""
UNKNOWN_LABEL = -1


def lacking(probe: Probe, step: GuidedStep) -> list[str]:
    """Fields that a probe needs and a step lacks."""
    return [name for name in probe.needs if getattr(step, name) is None]


def usual_probes(step: GuidedStep) -> list[Probe]:
    """The usual probes that can measure a step."""
    images = step.x_t.ndim == 4
    made = [probe for name in _USUAL if images or name != "spectrum" for probe in NAMED[name]()]
    return [probe for probe in made if not lacking(probe, step)]


class _Lenient(Trajectory):
    """Records a block; where a later step lacks what a probe needs, its values are NaN."""

    def _measured(self, step: GuidedStep) -> dict[str, Tensor]:
        recorder, values = self._recorder, dict[str, Tensor]()
        for i, probe in enumerate(recorder.probes):
            if lacking(probe, step):
                arrays = {array.name: array for array in recorder.schema.arrays}
                for variable in probe.variables:
                    array = arrays[variable.name]
                    shape = (len(step.x_t), *recorder.schema.extra(array))
                    empty = fill_value(array.dtype)
                    values[variable.name] = torch.full(
                        shape, empty, dtype=getattr(torch, array.dtype), device=step.x_t.device
                    )
                continue
            state = [self._states[i]]
            values |= measured([probe], step, state)
            self._states[i] = state[0]
        return values


@dataclass
class Block:
    """A batch of the loop in the store."""

    cell: tuple[int, ...]
    first_sample: int
    rows: list[slice]
    """Rows of the batch, one slice for each block of the store."""
    hooks: list[Trajectory]

    def record(self, step: GuidedStep) -> None:
        """Record a step of the whole batch."""
        for rows, hook in zip(self.rows, self.hooks, strict=True):
            hook(step if len(self.rows) == 1 else _part(step, rows))


class GrowingStore:
    """The store of a watched loop.

    Parameters
    ----------
    path
        Where it will be.
    process
        The loop's process.
    probes
        What to record; None for all usual probes that can measure the first step.
    sample_dims
        Names of a sample's dimensions for their number; an empty tuple for the usual ones.
    options
        Further options of `Recorder`.
    """

    def __init__(
        self,
        path: Any,
        process: Process,
        probes: Sequence[Probe] | None,
        sample_dims: Callable[[int], tuple[str, ...]],
        repeats: int,
        options: Mapping[str, Any],
    ) -> None:
        self._path, self._process, self._probes = path, process, probes
        self._sample_dims, self._repeats, self._options = sample_dims, repeats, options
        self.recorder: Recorder | None = None
        self._along: dict[str, list[Any]] = {}
        self._labels: list[int] = []
        self._begun: dict[tuple[Any, ...], int] = {}
        self._times = np.zeros(0)
        self._levels: list[Level | None] = []
        self._shape: tuple[int, ...] = ()
        self._block = 0

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the cells; empty before the first step."""
        return tuple(self._along)

    def has(self, *names: str) -> bool:
        """Whether the store has one of these variables."""
        return self.recorder is not None and any(array.name in names for array in self.recorder.schema.arrays)

    def left_out(self, step: GuidedStep) -> list[str]:
        """Why probes that the user gave are not recorded, in sentences; `step` is the store's first.

        Without a stabiliser there is no update, which needs no sentence.
        """
        given = () if self.recorder is not None or self._probes is None else self._probes
        return [
            f"probe {type(probe).__name__} is left out: the loop did not show {', '.join(fields)}"
            for probe in given
            if (fields := [name for name in lacking(probe, step) if name != "update"])
        ]

    def begin(
        self,
        cell: Mapping[str, Any],
        label: Sequence[int],
        step: GuidedStep,
        attributes: Mapping[str, Any],
    ) -> Block:
        """Begin to record a batch of a cell, from this step on; the store is made or grows as needed.

        Parameters
        ----------
        cell
            Coordinates of the cell, by dimension.
        label
            Target classes, ``(n,)``; `UNKNOWN_LABEL` for unknown ones.
        step
            The batch's first step.
        attributes
            Attributes of the store, set when it is made.
        """
        batch = len(step.x_t)
        if self.recorder is None:
            self._shape, self._block = tuple(step.x_t.shape[1:]), batch
            self._set_times()
        elif tuple(step.x_t.shape[1:]) != self._shape:
            raise GradscopeError(f"the store has samples of shape {self._shape}, got {tuple(step.x_t.shape[1:])}")
        key = tuple(cell.values())
        first = self._begun.get(key, 0)
        while self._differ(self._labels[first : first + batch], label):  # a sample has one label in all cells
            first += self._block
        self._begun[key] = first + -(-batch // self._block) * self._block
        changed = self._reach(cell, first, label)
        if self.recorder is None:
            self._make(step, attributes)
        elif changed:
            self.recorder.grow(self._grid())
        assert self.recorder is not None
        index = tuple(self._along[dim].index(value) for dim, value in cell.items())
        rows = [slice(i, min(i + self._block, batch)) for i in range(0, batch, self._block)]
        hooks = [_Lenient(self.recorder, index, first + part.start) for part in rows]
        return Block(index, first, rows, [*hooks])

    def set_times(self, times: np.ndarray, levels: list[Level | None]) -> None:
        """Replace the timesteps, once a loop whose timesteps were not known has shown them."""
        self._times, self._levels = times, levels
        if self.recorder is not None:
            self.recorder.grow(self._grid())

    def set_labels(self, first_sample: int, label: Sequence[int]) -> None:
        """Set labels that were not known when their batch began."""
        rows = slice(first_sample, first_sample + len(label))
        if self._labels[rows] != [*label] and not self._differ(self._labels[rows], label):
            self._labels[rows] = label
            assert self.recorder is not None
            self.recorder.grow(self._grid())

    def final(self, block: Block, samples: Tensor) -> None:
        """Record the final samples of a batch, ``(n, *sample)``."""
        assert self.recorder is not None
        for rows in block.rows:
            self.recorder.final(block.cell, block.first_sample + rows.start, samples[rows])

    def close(self, error: BaseException | None, status: str, attributes: Mapping[str, Any]) -> None:
        """Write what waits, and set the status and attributes."""
        if self.recorder is None or not self.recorder.begun:
            return
        self.recorder.__exit__(type(error) if error else None, error, error.__traceback__ if error else None)
        set_attributes(self._path, {**attributes, **({} if error else {"status": status})})

    def _set_times(self) -> None:
        times, count = self._process.times(), self._process.length()
        self._times = np.arange(count, dtype=np.float64)[::-1].copy() if times is None else times
        self._levels = [None] * count if times is None else self._process.levels(times)

    @staticmethod
    def _differ(known: Sequence[int], label: Sequence[int]) -> bool:
        """Whether labels contradict those of other cells."""
        both = zip(known, label, strict=False)
        return any(a != b for a, b in both if UNKNOWN_LABEL not in (a, b))

    def _reach(self, cell: Mapping[str, Any], first: int, label: Sequence[int]) -> bool:
        """Add a cell's values and samples; whether anything is new."""
        if self._along and self._along.keys() != cell.keys():
            raise GradscopeError(f"cell: every cell has values of {', '.join(self._along)}, got {', '.join(cell)}")
        changed = False
        for dim, value in cell.items():
            values = self._along.setdefault(dim, [])
            if value not in values:
                values.append(value)
                changed = True
        end = first + len(label)
        known = self._labels[first:end]
        if end > len(self._labels):
            self._labels += [UNKNOWN_LABEL] * (end - len(self._labels))
            changed = True
        if all(one == UNKNOWN_LABEL for one in known):
            changed |= self._labels[first:end] != [*label]
            self._labels[first:end] = label
        return changed

    def _grid(self) -> Grid:
        levels = [level or Level(np.nan, np.nan) for level in self._levels]
        constants = self._process.constants(len(self._times))
        nominal = self._process.posterior_sigmas(self._times)
        sigma = [constants[i].sigma if i in constants else nominal[i] for i in range(len(self._times))]
        return Grid(
            **{dim: tuple(self._along[dim]) for dim in CELL_DIMS},
            further={dim: tuple(values) for dim, values in self._along.items() if dim not in CELL_DIMS},
            label=np.array(self._labels),
            seed=np.full(len(self._labels), -1),
            timestep=self._times,
            alphas_cumprod=np.array([level.alphas_cumprod for level in levels]),
            sigma=np.array(sigma),
            signal=np.array([level.signal for level in levels]),
            noise=np.array([level.noise for level in levels]),
            sample_shape=self._shape,
            sample_dims=self._sample_dims(len(self._shape)),
            batch_size=self._block,
            repeats=self._repeats,
        )

    def _make(self, step: GuidedStep, attributes: Mapping[str, Any]) -> None:
        probes = usual_probes(step) if self._probes is None else [p for p in self._probes if not lacking(p, step)]
        about = origin({}, (), step.x_t.device) | {"scheduler": json.dumps(self._process.settings())}
        self.recorder = Recorder(
            self._path,
            self._grid(),
            probes,
            device=step.x_t.device,
            attributes=about | dict(attributes),
            **self._options,
        )


def _part(step: GuidedStep, rows: slice) -> GuidedStep:
    """Some rows of a step."""
    batch = len(step.x_t)
    parts: dict[str, Any] = {
        f.name: value[rows]
        for f in fields(step)
        if isinstance(value := getattr(step, f.name), Tensor) and value.ndim and len(value) == batch
    }
    return replace(step, **parts)
