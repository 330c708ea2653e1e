"""`gradscope record`."""

from typing import Annotated

import typer

from gradscope.cli.completion import stores
from gradscope.cli.interruption import interruptible
from gradscope.cli.options import Device, OptionalConfig, Overwrite, Set


def record(
    config: OptionalConfig = None,
    store: Annotated[
        str | None, typer.Option("--store", help="Where to record, a path or URL; default: recording.path.")
    ] = None,
    overrides: Set = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="STORE", help="Continue an interrupted run.", autocompletion=stores),
    ] = None,
    stop_on_nonfinite: Annotated[
        bool, typer.Option("--stop-on-nonfinite", help="Stop with status 3 at the first gradient that is not finite.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="N", min=1, help="Record with N processes.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option("--scheduler", metavar="tcp://HOST:PORT", help="Record on the workers of a dask scheduler."),
    ] = None,
) -> None:
    """Record a run, every cell of the configuration's grid, into one store; then judge the samples."""
    from gradscope.cli.recording import Request, run

    with interruptible():
        run(Request(config, resume, store, overrides or (), device, overwrite, stop_on_nonfinite, workers, scheduler))
