"""What `gradscope oracle` does besides printing: choose what is scored, score it, save it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr
from rich.console import Console
from rich.progress import Progress

from gradscope.cli.interruption import interruptible
from gradscope.config import OracleConfig, check, load
from gradscope.errors import GradscopeError
from gradscope.oracle.leaderboard import leaderboard, save_leaderboard
from gradscope.store.derived import refuse_out


def score(
    console: Console,
    config: str,
    overrides: Sequence[str],
    chosen: Mapping[str, str | None],
    numbers: Mapping[str, int | None],
    out: Path | None,
    overwrite: bool,
    command: Sequence[str],
) -> xr.Dataset:
    """Score what is chosen, and save it where `out` says.

    Parameters
    ----------
    console
        Shows the progress.
    config, overrides
        The configuration's name, and ``key.sub=value`` overrides.
    chosen
        Names, separated by commas, in place of those of the configuration; None leaves them.
    numbers
        Numbers in place of those of the configuration; None leaves them.
    out, overwrite
        Path of the store, None for none, and whether an existing one is replaced.
    command
        The command line.
    """
    settings = choose(load(OracleConfig, config, overrides), chosen, numbers)
    if out is not None:
        refuse_out(out, overwrite, "a leaderboard")
    with interruptible(), Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=None)
        try:
            ds = leaderboard(
                settings,
                out=out,
                on_step=lambda done, total: progress.update(task, completed=done, total=total),
                command=command,
            )
        except KeyboardInterrupt as interruption:
            if out is not None:
                interruption.add_note("the same command goes on from here")
            raise
    if out is not None:
        save_leaderboard(ds, out)
        console.print(f"wrote {out}")
    return ds


def choose(config: OracleConfig, chosen: Mapping[str, str | None], numbers: Mapping[str, int | None]) -> OracleConfig:
    """The configuration with other names and numbers; a name of the configuration keeps its settings.

    Raises
    ------
    GradscopeError
        A name is empty or unknown, or a number is out of range.
    """
    content: dict[str, Any] = config.model_dump()
    for key, text in chosen.items():
        if text is None:
            continue
        names = [name.strip() for name in text.split(",")]
        if not all(names):
            raise GradscopeError(f"--{key}: takes names, separated by commas, got {text!r}")
        known = content[key]
        content[key] = names if isinstance(known, list) else {name: (known or {}).get(name, {}) for name in names}
    content |= {key: number for key, number in numbers.items() if number is not None}
    return check(OracleConfig, content, "--config, with options")
