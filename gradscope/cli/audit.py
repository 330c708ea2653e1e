"""`gradscope audit`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.options import Config, Device, Overwrite, Set, expanded


def audit(
    config: Config,
    overrides: Set = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="NAME.zarr", help="Save the numbers as a zarr store.", callback=expanded),
    ] = None,
    device: Device = "auto",
    overwrite: Overwrite = False,
) -> None:
    """Audit classifiers before any sampling: at which timesteps can each guide? Held-out images are noised."""
    from rich.console import Console
    from rich.progress import Progress

    from gradscope.auditing.run import run_audit
    from gradscope.cli.display import audit as display
    from gradscope.config import AuditConfig, load
    from gradscope.store.derived import refuse_out, save

    console = Console(markup=False)
    settings = load(AuditConfig, config, overrides or ())
    if out is not None:
        refuse_out(out, overwrite, "an audit")
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("auditing", total=None)
        ds = run_audit(
            settings,
            device,
            on_step=lambda done, total: progress.update(task, completed=done, total=total),
            command=sys.argv,
        )
    if out is not None:
        save(ds, out)
        console.print(f"wrote {out}")
    for table in display.audit_tables(ds):
        console.print(table)
    for line in (*display.audit_verdicts(ds), *display.audit_predictions(ds)):
        console.print(line, highlight=False)
