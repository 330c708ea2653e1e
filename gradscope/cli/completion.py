"""Completion of configurations, presets and stores. Without a match the shell completes file names."""

from glob import escape, glob

import typer


def configurations(ctx: typer.Context, incomplete: str) -> list[str]:
    """YAML files, and the presets of the command."""
    from gradscope.config.presets import presets

    trains = ctx.parent is not None and ctx.parent.info_name == "train"
    audits = ctx.info_name in ("audit", "probe-classifier")
    names = [name for name in presets() if name.startswith("train/") == trains and (name == "audit.yaml") == audits]
    return _files(incomplete, ".yaml") + [name for name in names if name.startswith(incomplete)]


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
