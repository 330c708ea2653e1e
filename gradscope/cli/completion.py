"""Completion of configurations, presets and stores. Without a match the shell completes file names."""

from glob import escape, glob

import typer

_OWN = {"audit": "audit", "probe-classifier": "audit", "oracle": "oracle"}
"""Commands that have presets of their own."""


def configurations(ctx: typer.Context, incomplete: str) -> list[str]:
    """YAML files, and the presets of the command."""
    from gradscope.config.presets import presets

    trains = ctx.parent is not None and ctx.parent.info_name == "train"
    command = "train" if trains else _OWN.get(str(ctx.info_name), "record")
    names = [name for name in presets() if _command_of(name) == command]
    return _files(incomplete, ".yaml") + [name for name in names if name.startswith(incomplete)]


def _command_of(preset: str) -> str:
    """The command that takes a preset; its name begins with that of the command, or the command records."""
    return next((own for own in ("train", *_OWN.values()) if preset.startswith(own)), "record")


def presets(incomplete: str) -> list[str]:
    """Names of all presets."""
    from gradscope.config.presets import presets as all_presets

    names = [name.removesuffix(".yaml") for name in all_presets()]
    return [name for name in names if name.startswith(incomplete)]


def stores(incomplete: str) -> list[str]:
    """Zarr stores."""
    return _files(incomplete, ".zarr")


def _files(incomplete: str, ending: str) -> list[str]:
    """Files and folders with an ending, here or one folder further down."""
    begun = escape(incomplete)
    return sorted(glob(f"{begun}*{ending}") + glob(f"{begun}*/*{ending}"))
