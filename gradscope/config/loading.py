"""From a YAML file and overrides to a checked configuration."""

import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML

from gradscope.config.fields import Strict
from gradscope.config.messages import error_lines
from gradscope.config.plain import refuse_strange
from gradscope.errors import GradscopeError, one_of

Model = TypeVar("Model", bound=Strict)
_MAX_BYTES = 2**20


def load(model: type[Model], name: str, overrides: Sequence[str] = ()) -> Model:
    """Read the YAML file `name`, apply ``key.sub=value`` overrides (values are YAML) and check it.

    Raises
    ------
    GradscopeError
        Naming every wrong key, what was got and what is possible.
    """
    path = find(name)
    content = read_yaml(path, f"--config: {path}")
    if not isinstance(content, dict):
        raise GradscopeError(f"{path}: a configuration is a mapping of keys, got {type(content).__name__}")
    for override in overrides:
        apply(content, override)
    return check(model, content, str(path))


def read_yaml(path: Path, where: str) -> Any:
    """What a YAML file holds; `where` stands before an error."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise GradscopeError(f"{where} has more than {_MAX_BYTES} bytes, which is no configuration")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GradscopeError(f"{where} cannot be read as text: {error}") from None
    return _parse(text, where)


def check(model: type[Model], content: Any, where: str) -> Model:
    """Check a mapping against a configuration model; `where` stands before each error."""
    refuse_strange(content, where)
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise GradscopeError(f"{where}: " + "; ".join(error_lines(model, error))) from None


def find(name: str) -> Path:
    """Find a configuration: as given, then in ``runs/``, then among the presets inside the package."""
    candidates = [Path(os.path.expanduser(name)), Path("runs") / name]
    for path in candidates:
        if os.path.isfile(path):  # Path.is_file raises where a name is too long
            return path
    presets = preset_folder()
    if os.path.isfile(presets / name):
        return presets / name
    names = sorted(str(path.relative_to(presets)) for path in presets.rglob("*.yaml"))
    raise GradscopeError(f"--config: no file {name!r} here, in runs/ or among the presets; {one_of(name, names)}")


def preset_folder() -> Path:
    """Where the presets lie: inside the installed package, or ``runs/`` of the checkout it is run from."""
    package = Path(str(resources.files("gradscope")))
    inside = package / "presets"
    return inside if inside.is_dir() else package.parent / "runs"


def _parse(text: str, where: str) -> Any:
    try:
        return YAML(typ="safe", pure=True).load(text)
    except Exception as error:  # YAMLError, and whatever dates, numbers and keys raise that are none
        raise GradscopeError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None


def apply(content: dict[str, Any], override: str) -> None:
    """Change `content` by one ``key.sub=value``, where the value is YAML."""
    key, separator, value = override.partition("=")
    if not separator or not key:
        raise GradscopeError(f"--set takes key=value, for example sampling.samples=4; got {override!r}")
    *parents, last = key.split(".")
    for i, parent in enumerate(parents):
        if content.get(parent) is None:
            content[parent] = {}
        content = content[parent]
        if not isinstance(content, dict):
            raise GradscopeError(f"--set {override}: {'.'.join(parents[: i + 1])} is a value, it has no keys")
    content[last] = _parse(value, f"--set {override}")
