"""`gradscope check history`."""

from typing import Annotated

import typer


def history(
    seeds: Annotated[
        int, typer.Option("--seeds", min=1, help="Number of seeds; each draws other models, samples and timesteps.")
    ] = 1,
) -> None:
    """Check small sampling loops in which the faults of public code are planted. Exit status 1 if one is not named."""
    from rich.console import Console
    from rich.progress import Progress

    from gradscope.checking.history.trial import answers, count
    from gradscope.cli.display.history import history_sentence, history_table

    console = Console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        found = list(progress.track(answers(seeds), total=count(seeds), description="checking"))
    console.print(history_table(found))
    console.print(history_sentence(found, seeds), highlight=False)
    if not all(answer.correct for answer in found):
        raise typer.Exit(1)
