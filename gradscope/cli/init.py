"""`gradscope init`."""

from pathlib import Path
from typing import Annotated

import typer

from gradscope.cli.completion import presets
from gradscope.cli.options import Overwrite, expanded
from gradscope.errors import GradscopeError


def init(
    preset: Annotated[
        str, typer.Argument(metavar="[PRESET]", help="Name of a preset.", autocompletion=presets)
    ] = "quickstart",
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="NAME.yaml", help="Where to write it; default: the preset's name.", callback=expanded
        ),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a commented configuration to start from: every key, what it does, its values and its default."""
    from gradscope.config.commented import commented_preset

    text, command = commented_preset(preset)
    path = Path(f"{preset.removesuffix('.yaml').rpartition('/')[2]}.yaml") if out is None else out
    if path.suffix != ".yaml":
        raise GradscopeError(f"--out: a configuration is saved as NAME.yaml; got {str(path)!r}")
    if not path.parent.is_dir():
        raise GradscopeError(f"--out: no folder {path.parent}")
    if path.is_dir():
        raise GradscopeError(f"--out: {path} is a folder")
    if path.exists() and not overwrite:
        raise GradscopeError(f"--out: {path} exists; choose another path, or overwrite it (--overwrite)")
    path.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {path}\nedit it, then: gradscope {command} --config {path}")
