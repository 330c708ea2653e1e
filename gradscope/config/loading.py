"""From a YAML file and overrides to a checked configuration."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer

from gradscope.config.fields import Strict
from gradscope.config.messages import error_lines
from gradscope.config.presets import find
from gradscope.errors import GradscopeError

Model = TypeVar("Model", bound=Strict)
_MAX_BYTES, _MAX_DEPTH, _MAX_REPEATED = 2**20, 20, 100_000


def load(model: type[Model], name: str, overrides: Sequence[str] = ()) -> Model:
    """Read the YAML file `name`, apply ``key.sub=value`` overrides (values are YAML) and check the result.

    Parameters
    ----------
    model
        `RunConfig`, or the model of another command.
    name
        A path, a file in ``runs/``, or the name of a preset.
    overrides
        For example ``["sampling.samples=4"]``; the last one of a key counts.

    Raises
    ------
    GradscopeError
        Names every wrong key, its value and the possible ones.
    """
    path = find(name)
    content = read_yaml(path, f"--config: {path}")
    if not isinstance(content, dict):
        raise GradscopeError(f"{path}: a configuration is a mapping of keys, got {type(content).__name__}")
    for override in overrides:
        apply(content, override)
    return check(model, content, str(path))


def read_yaml(path: Path, where: str) -> Any:
    """Read a YAML file; errors begin with `where`."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise GradscopeError(f"{where} has more than {_MAX_BYTES} bytes: too large for a configuration")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise GradscopeError(f"{where} cannot be read as text: {error}") from None
    return _parse(text, where)


def check(model: type[Model], content: Any, where: str) -> Model:
    """Check a mapping against a configuration model; errors begin with `where`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise GradscopeError(f"{where}: " + "; ".join(error_lines(model, error))) from None


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


class _BoundedComposer(Composer):
    """Refuses aliases that together repeat more than `_MAX_REPEATED` values: a few lines can stand for billions."""

    repeated = 0

    def return_alias(self, a: Any) -> Any:
        todo = [a]
        while todo:
            self.repeated += 1
            if self.repeated > _MAX_REPEATED:
                raise ValueError(f"its aliases repeat more than {_MAX_REPEATED} values, the last one is *{a.anchor}")
            value = todo.pop().value
            for part in value if isinstance(value, list) else ():
                todo += part if isinstance(part, tuple) else (part,)
        return a


def _parse(text: str, where: str) -> Any:
    yaml = YAML(typ="safe", pure=True)
    yaml.max_depth = _MAX_DEPTH
    yaml.Composer = _BoundedComposer
    try:
        return yaml.load(text)
    except Exception as error:  # not only YAMLError: dates, numbers and keys raise others
        raise GradscopeError(f"{where} is not valid YAML: {' '.join(str(error).split())}") from None
