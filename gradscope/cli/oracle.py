"""`gradscope oracle`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from gradscope.cli.completion import configurations, stores
from gradscope.cli.options import Overwrite, Set, expanded


def _names(what: str) -> Any:
    return typer.Option(metavar="NAMES", help=f"{what}, separated by commas, in place of the configuration's.")


def oracle(
    store: Annotated[
        str | None,
        typer.Argument(metavar="[STORE]", help="Print the leaderboard of a store.", autocompletion=stores),
    ] = None,
    config: Annotated[
        str, typer.Option("--config", help="YAML file: a path, or the name of a preset.", autocompletion=configurations)
    ] = "oracle.yaml",
    overrides: Set = None,
    mixtures: Annotated[str | None, _names("Mixtures")] = None,
    guides: Annotated[str | None, _names("Kinds of guide")] = None,
    methods: Annotated[
        str | None, _names("Methods, METHOD@INPUT or package.module:Class@INPUT")
    ] = None,
    stabilizers: Annotated[str | None, _names("Stabilisers, by name or package.module:Class")] = None,
    samples: Annotated[int | None, typer.Option(help="Trajectories in each cell.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of mixtures, noise and trainings.")] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="NAME.zarr", help="Save the leaderboard as a zarr store. Interrupted, the same "
                     "command goes on from there.", callback=expanded),
    ] = None,
    overwrite: Overwrite = False,
) -> None:  # fmt: skip
    """Score guidance against the exact gradient on Gaussian mixtures: methods, stabilisers and kinds of guide."""
    from rich.console import Console

    from gradscope.analysis.oracle import open_leaderboard
    from gradscope.cli.display.oracle import oracle_tables

    console = Console(markup=False)
    if store is not None:
        ds = open_leaderboard(store)
    else:
        from gradscope.cli.oracle_workflow import score

        chosen = {"mixtures": mixtures, "guides": guides, "methods": methods, "stabilizers": stabilizers}
        numbers = {"samples": samples, "seed": seed}
        ds = score(console, config, overrides or (), chosen, numbers, out, overwrite, sys.argv)
    for table in oracle_tables(ds):
        console.print(table)
