"""Where configurations are found: as given, in ``runs/``, or among the presets inside the package."""

import os
from importlib import resources
from pathlib import Path

from gradscope.errors import GradscopeError, one_of


def find(name: str) -> Path:
    """Find a configuration file.

    Raises
    ------
    GradscopeError
        There is no such file; the error names the presets.
    """
    candidates = [Path(os.path.expanduser(name)), Path("runs") / name, preset_folder() / name]
    for path in candidates:
        if os.path.isfile(path):  # Path.is_file raises where a name is too long
            return path
    raise GradscopeError(
        f"no file {name!r} here, in runs/ or among the presets; {one_of(name, presets())}", key="--config"
    )


def presets() -> list[str]:
    """Names of the presets, for example ``both.yaml`` and ``train/ddpm32.yaml``, sorted."""
    folder = preset_folder()
    paths = [*folder.glob("*.yaml"), *folder.glob("train/**/*.yaml")]  # a checkout's runs/ also has cards of models
    return sorted(path.relative_to(folder).as_posix() for path in paths)


def preset_folder() -> Path:
    """Folder of the presets: inside the installed package, or ``runs/`` of a checkout."""
    package = Path(str(resources.files("gradscope")))
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "runs"
