"""Options that commands share."""

from typing import Annotated

import typer

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
