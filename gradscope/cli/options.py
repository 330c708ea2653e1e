"""Options that commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.completion import configurations, stores


def expanded(path: Path | None) -> Path | None:
    """The path with the home folder for a `~` at its beginning, which shells leave in ``--out=~/a.zarr``."""
    return None if path is None else Path(os.path.expanduser(path))


_CONFIG = typer.Option(
    "--config", help="YAML file: a path, a file in runs/, or the name of a preset.", autocompletion=configurations
)
Config = Annotated[str, _CONFIG]
OptionalConfig = Annotated[str | None, _CONFIG]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key, with dots below it; values are YAML. Repeatable."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what exists.")]
StorePath = Annotated[
    str, typer.Argument(metavar="STORE", help="A recorded zarr store: a path or URL.", autocompletion=stores)
]
