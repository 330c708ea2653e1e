"""`gradscope check`."""

from typing import Annotated

import typer

from gradscope.cli.options import Device, OptionalConfig, Set


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
    device: Device = "auto",
) -> None:
    """Check whether a gradient of guidance is right, and name what is wrong. Exit status 0: right, 1: not right."""
    from gradscope.errors import GradscopeError

    if (code is None) == (config is None):
        raise GradscopeError("check: takes your code, as package.module:function, or --config, one of both")
    if seeds is not None and code != "history":
        raise GradscopeError("--seeds: goes with history")
    if code is not None:
        if overrides:
            raise GradscopeError("--set: changes a configuration; it goes with --config")
        right = _history(seeds or 1) if code == "history" else _code(code)
    else:
        assert config is not None
        right = _configuration(config, overrides or [], timesteps, device)
    if not right:
        raise typer.Exit(1)


def _code(spec: str) -> bool:
    """Check the user's own code."""
    from rich.console import Console

    from gradscope.checking.from_code import check_code

    found = check_code(spec)
    Console(markup=False).print(found.__rich__(), soft_wrap=True)
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


def _configuration(config: str, overrides: list[str], timesteps: int, device: str) -> bool:
    """Check each cell of a configuration."""
    import time

    from rich.console import Console
    from rich.table import Table

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
    return not wrong
