"""The progress of a recording: a bar in a terminal or notebook, or a function of the user's own."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from gradscope.errors import GradscopeError
from gradscope.store import Grid
from probes import GuidedStep

Advance = Callable[[tuple[int, ...], int], None]
"""Called with a cell and the number of steps that were recorded since the last call."""
OnProgress = Callable[[int, int], object]
"""Called with the number of recorded steps and that of all steps."""


def check_progress(progress: object) -> None:
    """Raise GradscopeError unless `progress` says how to show progress; see `showing`."""
    if not isinstance(progress, bool) and not callable(progress):
        raise GradscopeError(f"progress: takes True, False or a function of (done, total), got {progress!r:.80}")


def count(advance: Advance, cell: tuple[int, ...], step: GuidedStep) -> None:
    """Advance by one step. All steps together are the grid's timesteps, so a repeated step counts once."""
    if step.repeat == 0:
        advance(cell, 1)


@contextmanager
def showing(progress: bool | OnProgress, grid: Grid, done: int) -> Iterator[Advance]:
    """Show progress over all steps of all cells, with `done` blocks recorded before.

    Parameters
    ----------
    progress
        True shows `recording_progress`, False nothing; a function is called after each step.
    """
    if progress is True:
        with recording_progress(Console(markup=False), grid, done) as advance:
            yield advance
        return
    recorded, total = done * grid.timesteps, _total(grid)

    def tell(cell: tuple[int, ...], steps: int) -> None:
        nonlocal recorded
        recorded += steps
        if progress is not False:
            progress(recorded, total)

    yield tell


@contextmanager
def recording_progress(console: Console, grid: Grid, done: int) -> Iterator[Advance]:
    """Progress bar over all steps of all cells, with `done` blocks recorded before; yields ``advance(cell, steps)``."""
    total = _total(grid)
    in_cell = total // int(np.prod(grid.cells))
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("preparing", total=total, completed=done * grid.timesteps)

        def advance(cell: tuple[int, ...], steps: int) -> None:
            names = (str(grid.along(dim)[i]) for dim, i in zip(grid.cell_dims, cell, strict=True))
            name = " / ".join(names)
            progress.update(task, advance=steps, description=name)
            completed = int(progress.tasks[0].completed)
            if not console.is_terminal and not console.is_jupyter and completed % in_cell == 0:
                console.print(Text(f"{completed}/{total} steps: {name}"))

        yield advance


def _total(grid: Grid) -> int:
    """Number of steps of all blocks of all cells."""
    blocks = -(-grid.samples // grid.block)
    return int(np.prod(grid.cells)) * blocks * grid.timesteps
