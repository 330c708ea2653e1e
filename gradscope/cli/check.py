"""`gradscope check`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gradscope.cli.options import Device, OptionalConfig, Overwrite, Set, expanded

if TYPE_CHECKING:
    from gradscope.reporting.check_file import CheckFile


def check(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="MODULE:FUNCTION|history",
            help="A function without arguments that returns the arguments of gradscope.check or check_loop, by name; "
            "history: small loops in which the faults of public code are planted.",
        ),
    ] = None,
    config: OptionalConfig = None,
    overrides: Set = None,
    timesteps: Annotated[int, typer.Option("--timesteps", min=1, help="With --config: timesteps of each cell.")] = 2,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds",
            min=1,
            help="With history: number of seeds, 1 if not given; each draws models and samples.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="Save the answers as FILE.json, which gradscope dashboard shows.", callback=expanded
        ),
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
) -> None:
    """Check whether a gradient of guidance is right, and name what is wrong. Exit status 0: right, 1: not right."""
    from gradscope.errors import GradscopeError

    if (code is None) == (config is None):
        raise GradscopeError("check: takes your code, as package.module:function, or --config, one of both")
    if seeds is not None and code != "history":
        raise GradscopeError("--seeds: goes with history")
    if out is not None:
        _refuse_out(out, overwrite, code)
    if code is not None:
        if overrides:
            raise GradscopeError("--set: changes a configuration; it goes with --config")
        right = _history(seeds or 1) if code == "history" else _code(code, out)
    else:
        assert config is not None
        right = _configuration(config, overrides or [], timesteps, device, out)
    if not right:
        raise typer.Exit(1)


def _refuse_out(out: Path, overwrite: bool, code: str | None) -> None:
    """Raise GradscopeError unless answers may be saved there."""
    from gradscope.errors import GradscopeError

    if code == "history":
        raise GradscopeError("--out: history checks gradscope's own loops; it goes with --config or your code")
    if out.suffix != ".json":
        raise GradscopeError(f"answers are saved as NAME.json; got {str(out)!r}", key="--out")
    if out.exists() and not overwrite:
        raise GradscopeError(f"{out} exists; choose another path", key="--out", command="or overwrite it (--overwrite)")
    if not out.absolute().parent.is_dir():
        raise GradscopeError(f"{out.parent} is no folder", key="--out")


def _save(found: "CheckFile", out: Path) -> None:
    from gradscope.reporting.check_file import write

    write(found, out)
    typer.echo(f"wrote {out}")


def _code(spec: str, out: Path | None) -> bool:
    """Check the user's own code."""
    from rich.console import Console

    from gradscope.checking.answers import of_code
    from gradscope.checking.from_code import check_code

    found = check_code(spec)
    Console(markup=False).print(found.__rich__(), soft_wrap=True)
    if out is not None:
        _save(of_code(spec, found), out)
    return found.right


def _history(seeds: int) -> bool:
    """Check the planted faults."""
    from rich.console import Console
    from rich.progress import Progress

    from gradscope.checking.history.trial import answers, count
    from gradscope.cli.display.history import history_sentence, history_table

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        found = list(progress.track(answers(seeds), total=count(seeds), description="checking"))
    console.print(history_table(found))
    console.print(history_sentence(found, seeds), highlight=False)
    return all(answer.correct for answer in found)


def _configuration(config: str, overrides: list[str], timesteps: int, device: str, out: Path | None) -> bool:
    """Check each cell of a configuration."""
    import time

    from rich.console import Console
    from rich.table import Table

    from gradscope.checking.answers import of_cells
    from gradscope.checking.configuration import check_configuration
    from gradscope.config import RunConfig, load

    settings = load(RunConfig, config, overrides)
    console, begun = Console(markup=False), time.perf_counter()
    cells = list(check_configuration(settings, device, timesteps=timesteps))
    table = Table("classifier", "input", "timestep", "verdict", "cosine", "deviation", "confidence")
    for cell in cells:
        found = cell.answer
        numbers = [f"{found.evidence.get(name, float('nan')):.4g}" for name in ("cosine", "deviation")]
        table.add_row(
            cell.classifier, cell.classifier_input, f"{cell.timestep:g}", found.title, *numbers, found.confidence
        )
    console.print(table)
    for cell in cells:
        where = f"{cell.classifier}, {cell.classifier_input}, timestep {cell.timestep:g}"
        if not cell.answer.right:
            console.print(f"{where}:", cell.answer.__rich__(), soft_wrap=True)
        for remark in cell.answer.remarks:
            console.print(f"{where}: {remark}", soft_wrap=True, highlight=False)
    wrong = sum(not cell.answer.right for cell in cells)
    said = "all are right" if not wrong else f"{wrong} not right"
    console.print(f"{len(cells)} gradients checked in {time.perf_counter() - begun:.1f} s: {said}", highlight=False)
    if out is not None:
        _save(of_cells(config, cells), out)
    return not wrong
