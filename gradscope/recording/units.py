"""What is recorded together: a block of one cell, or the same block of all cells that leave x_t as it is."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import groupby
from math import prod
from typing import NamedTuple

import numpy as np
from torch import Tensor

from gradscope.recording.block_recorder import BlockRecorder
from gradscope.recording.measure import Common
from gradscope.sampling.sampler import GuidedSampler, StepHook
from gradscope.sampling.trajectory import sample_together
from gradscope.store import Schema
from gradscope.store.writer import OPEN
from probes import Probe

Cell = tuple[int, ...]
STAGED = 2**30
"""Bytes of steps that wait for their chunks, of all cells that are recorded together."""


class Unit(NamedTuple):
    """Cells that are recorded together, and the number of their block."""

    cells: tuple[Cell, ...]
    block: int


def units(left: Sequence[tuple[Cell, int]], schema: Schema, probes: Sequence[Probe], alone: bool = False) -> list[Unit]:
    """Divide the blocks that are left into units: first the cells with scale 0, then the others one by one.

    At scale 0 all cells have the same x_t, so each of its steps is taken once. Probes that hook into the models must
    see each cell's own passes; with one of these every cell is a unit. The steps of a unit's cells take at most
    `STAGED` bytes while they wait for their chunks.

    Parameters
    ----------
    left
        Cell and number of each block, in the order of recording.
    schema, probes
        What is recorded.
    alone
        Whether every cell is a unit in any case.
    """
    if alone or any(type(probe).attach is not Probe.attach for probe in probes):
        return [Unit((cell,), block) for cell, block in left]
    scales = schema.grid.guidance_scale
    most = max(1, min(OPEN, STAGED // max(1, _staged(schema))))
    together: dict[int, list[Cell]] = {}
    for cell, block in left:
        if scales[cell[3]] == 0:
            together.setdefault(block, []).append(cell)
    controls = [
        Unit(tuple(cells[i : i + most]), block) for block, cells in together.items() for i in range(0, len(cells), most)
    ]
    return controls + [Unit((cell,), block) for cell, block in left if scales[cell[3]] != 0]


def record_unit(
    unit: Unit,
    sampler_of: Callable[[Cell], GuidedSampler],
    recorder: BlockRecorder,
    num_inference_steps: int,
    seed: int,
    hook: Callable[[Cell], StepHook],
) -> Tensor:
    """Sample and record one unit; return the final samples, ``(n, *sample)``, the same for all its cells.

    Parameters
    ----------
    sampler_of
        The sampler of a cell.
    hook
        A further step hook for a cell.
    """
    grid = recorder.schema.grid
    first = unit.block * grid.block
    labels = grid.label[first : first + grid.block].tolist()
    common = {cell[:2]: Common() for cell in unit.cells}  # cells of one guide and input have one gradient
    with ExitStack() as hooks:
        samplers = {cell: sampler_of(cell) for cell in unit.cells}
        for cell, sampler in samplers.items():
            hooks.enter_context(sampler.register_step_hook(recorder.trajectory(cell, first, common[cell[:2]])))
            hooks.enter_context(sampler.register_step_hook(hook(cell)))
        if len(samplers) == 1:
            return samplers[unit.cells[0]].sample(labels, num_inference_steps, seed, first)
        groups = [[samplers[cell] for cell in cells] for _, cells in groupby(unit.cells, lambda cell: cell[:2])]
        return sample_together(groups, labels, num_inference_steps, seed, first)


def _staged(schema: Schema) -> int:
    """Bytes of one cell's block that may wait to be written, see `gradscope.store.staging.Staging`."""
    samples, repeats = schema.grid.block, max(1, schema.grid.repeats)
    kept = schema.kept_samples(0, samples) * schema.tensor_chunk[1]
    counts = [(schema.tensors, kept), (schema.scalars, samples * schema.scalar_chunk_steps)]
    sizes = (
        count * repeats * prod(schema.extra(array)) * np.dtype(array.dtype).itemsize
        for arrays, count in counts
        for array in arrays
    )
    return sum(sizes)
