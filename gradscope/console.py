"""What the command line prints: tables and progress."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product

import numpy as np
import xarray as xr
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gradscope.store import CELL_DIMS, Grid

_HEADS = {
    "gradient_cosine": "gradient cosine",
    "update_cosine": "update cosine",
    "effective_strength": "effective strength",
}


def summary_table(rows: xr.Dataset) -> Table:
    """`gradscope.analysis.summary` as a table, one row a cell."""
    judged = "class_accuracy" in rows
    table = Table(box=None, header_style="bold", pad_edge=False)
    for head in ("classifier", "input", "stabilizer"):
        table.add_column(head, no_wrap=True)
    heads = ["scale", "own accuracy"] * ("own_accuracy" in rows) or ["scale"]
    if judged:
        heads += ["judge accuracy", "95 %"]
    heads += [head for name, head in _HEADS.items() if name in rows]
    for head in heads:
        table.add_column(head, justify="right")
    if judged:
        table.add_column("judge accuracy by class", justify="right", no_wrap=True)
        classes = ", ".join(map(str, rows["class"].values))
        table.caption = f"N = {_samples(rows)} a cell; 95 %: Wilson's interval; classes: {classes}"
    for cell in product(*(range(rows.sizes[dim]) for dim in CELL_DIMS)):
        table.add_row(*_cells(rows[dict(zip(CELL_DIMS, cell, strict=True))], judged))
    return table


def _cells(row: xr.Dataset, judged: bool) -> list[str]:
    texts = [str(row[dim].values) for dim in CELL_DIMS[:3]] + [f"{float(row['guidance_scale']):g}"]
    if "own_accuracy" in row:
        texts.append(_number(row["own_accuracy"]))
    if judged:
        low, high = row["judge_interval"].values
        texts += [_number(row["judge_accuracy"]), f"{low:.2f}-{high:.2f}"]
    texts += [_number(row[name], digits=3) for name in _HEADS if name in row]
    if judged:
        texts.append(" ".join(_number(value) for value in row["class_accuracy"].values))
    return texts


def _number(value: xr.DataArray | float, digits: int = 2) -> str:
    number = float(value)
    return "-" if np.isnan(number) else f"{number:.{digits}f}"


def _samples(rows: xr.Dataset) -> str:
    low, high = int(rows["samples"].min()), int(rows["samples"].max())
    return str(low) if low == high else f"{low} to {high}"


@contextmanager
def recording_progress(console: Console, grid: Grid) -> Iterator:
    """A bar over all steps of all cells; yields the function to be called after each step."""
    blocks = -(-grid.samples // grid.batch_size)
    total = int(np.prod(grid.cells)) * blocks * grid.timesteps
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("steps"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("preparing", total=total)

        def on_step(cell: tuple[int, ...], step: object) -> None:
            names = (str(getattr(grid, dim)[i]) for dim, i in zip(CELL_DIMS, cell, strict=True))
            progress.update(task, advance=1, description=" / ".join(names))

        yield on_step


def print_info(console: Console, ds: xr.Dataset) -> None:
    """Sizes, variables and origin of a store."""
    written = float((ds["written"] > 0).mean())
    sizes = Table("dimension", "size", "values", box=None, header_style="bold")
    for dim, size in ds.sizes.items():
        values = ds[dim].values if dim in ds.coords else np.arange(size)
        text = ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in values)
        sizes.add_row(str(dim), str(size), text if len(text) < 60 else f"{values[0]} ... {values[-1]}")
    console.print(sizes)
    variables = Table("variable", "dtype", "unit", "what it is", box=None, header_style="bold")
    for name, variable in ds.data_vars.items():
        variables.add_row(str(name), str(variable.dtype), variable.attrs["units"], variable.attrs["long_name"])
    console.print(variables)
    console.print(f"written: {written:.1%} of all samples and timesteps; status: {ds.attrs['status']}")
    for key in ("run_id", "configuration_hash", "created", "device", "threads", "versions", "command"):
        console.print(f"{key}: {ds.attrs[key]}", highlight=False, soft_wrap=True)
    console.print(f"configuration: {ds.attrs['configuration']}", highlight=False, soft_wrap=True)
