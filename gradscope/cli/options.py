"""Options that commands share."""

import os
from pathlib import Path
from typing import Annotated

import typer


def expanded(path: Path | None) -> Path | None:
    """The path with the user's folder for a `~` at its beginning, which shells leave in ``--out=~/a.zarr``."""
    return None if path is None else Path(os.path.expanduser(path))


Config = Annotated[str, typer.Option("--config", help="YAML file: as given, or in runs/, or the name of a preset.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override one key, with dots below it; values are YAML. Repeatable."
    ),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:1.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
StorePath = Annotated[str, typer.Argument(metavar="STORE", help="A recorded zarr store: a path or URL.")]
