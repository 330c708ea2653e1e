"""Where a view begins: at a finding, at a cell, or in the middle of the store."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dashboards.data.shown_sample import shown_sample
from dashboards.notebook.source import Source, diagnostics
from dashboards.state import CELLS_DEFAULT, DEFAULT_VARIABLES, VARIABLES_MAX
from gradscope.analysis.cells import Cell, place
from gradscope.analysis.findings import Finding
from gradscope.analysis.signatures import find
from gradscope.errors import GradscopeError, whole_number
from gradscope.plots.figure_numbers import sample_index
from gradscope.store.dims import sample_shape
from probes.catalogue import CATALOGUE


@dataclass(frozen=True)
class Cursor:
    """A position, and what is shown around it."""

    cells: tuple[int, ...]
    """Numbers of the cells that are shown."""
    cell: int
    """The focused one."""
    sample: int
    """Index of the sample."""
    step: int
    """Index of the timestep."""
    variables: tuple[str, ...]
    """Diagnostics that are shown along t."""
    finding: Finding | None = None
    why: str = ""
    """How the sample and the timestep of the finding were chosen, in words."""


def place_cursor(
    source: Source,
    finding: int | Finding | None,
    cell: Cell | None,
    sample: int | None,
    timestep: float | None,
) -> Cursor:
    """The cursor that a call of `show` asks for.

    Raises
    ------
    GradscopeError
        There is no such finding, cell, sample or timestep, or both a finding and a cell are named.
    """
    ds = source.ds
    if finding is not None and cell is not None:
        raise GradscopeError("show: takes a finding or a cell, not both; a finding names its cell")
    found = None if finding is None else _finding(source, finding)
    named = cell if found is None else found.cell
    if named is not None:
        number = source.cells.index({dim: ds[dim].values.tolist()[i] for dim, i in place(ds, named).items()})
        shown: tuple[int, ...] = (number,)
    else:
        guided = [n for n, each in enumerate(source.cells) if each["guidance_scale"] != 0]
        shown = _spread(guided or list(range(len(source.cells))))
        number = shown[0]
    at, step, why = _start(source, number, found)
    if sample is not None:
        at = sample_index(ds, whole_number(sample, "sample"))
    if timestep is not None:
        step = _step(ds["timestep"].values, timestep)
    if sample is not None or timestep is not None:
        why = ""
    return Cursor(shown, number, at, step, _variables(source, found), found, why)


def _finding(source: Source, finding: int | Finding) -> Finding:
    if isinstance(finding, Finding):
        return finding
    number, found = whole_number(finding, "finding"), find(source.ds)
    if number >= len(found):
        there = f"there are {len(found)} findings, from 0" if found else "no test of this store failed"
        raise GradscopeError(f"finding {number}: {there}")
    return found[number]


def _spread(numbers: list[int]) -> tuple[int, ...]:
    """At most `CELLS_DEFAULT` of the numbers, evenly spread."""
    count = min(CELLS_DEFAULT, len(numbers))
    return tuple(numbers[i * len(numbers) // count] for i in range(count))


def _start(source: Source, number: int, finding: Finding | None) -> tuple[int, int, str]:
    """Sample, step and reason: those that show the finding, or the middle step with tensors of the first sample."""
    timestep = source.ds["timestep"].values
    if finding is not None:
        elements = int(np.prod(sample_shape(source.ds))) if source.tensors else 1
        shown = shown_sample(source.ds, finding, elements)
        return shown.sample, int(np.abs(np.trunc(timestep) - shown.timestep).argmin()), shown.why
    kept = source.written[number] >= 3
    if not kept.any():
        return 0, len(timestep) // 2, ""
    sample = int(kept.any(axis=1).argmax())
    steps = np.flatnonzero(kept[sample])
    return sample, int(steps[len(steps) // 2]), ""


def _step(timesteps: np.ndarray, wanted: Any) -> int:
    known = timesteps.tolist()
    if wanted not in known:
        nearest = min(known, key=lambda t: abs(t - wanted)) if isinstance(wanted, int | float) else known[0]
        raise GradscopeError(f"timestep: there is no {wanted!r:.40}; the nearest is {nearest:g}")
    return int(known.index(wanted))


def _variables(source: Source, finding: Finding | None) -> tuple[str, ...]:
    """The diagnostic that the finding's signature looks at, then the main ones."""
    known = diagnostics(source.ds)
    looked_at = [row.name for row in CATALOGUE.values() if finding is not None and finding.signature in row.thresholds]
    wanted = [name for name in (*looked_at, *DEFAULT_VARIABLES) if name in known] or known
    return tuple(dict.fromkeys(wanted))[:VARIABLES_MAX]
