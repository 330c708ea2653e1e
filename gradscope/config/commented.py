"""A preset as a file of the user's own: every key with its value and a comment."""

from io import StringIO
from textwrap import wrap
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from gradscope.config.audit import AuditConfig
from gradscope.config.fields import Strict
from gradscope.config.loading import check, read_yaml
from gradscope.config.oracle import OracleConfig
from gradscope.config.presets import preset_folder, presets
from gradscope.config.reference import Key, section
from gradscope.config.run import RunConfig
from gradscope.config.training import TrainClassifierConfig, TrainDenoiserConfig
from gradscope.errors import GradscopeError, one_of

_WIDTH = 120
MODELS: dict[str, type[Strict]] = {
    "record": RunConfig,
    "audit": AuditConfig,
    "oracle": OracleConfig,
    "train ddpm": TrainDenoiserConfig,
    "train classifier": TrainClassifierConfig,
}
"""The commands that take a configuration, with its model."""


def commented_preset(preset: str) -> tuple[str, str]:
    """A preset with all keys, defaults included, and a comment for each.

    Parameters
    ----------
    preset
        Name of a preset, for example ``quickstart``.

    Returns
    -------
    tuple[str, str]
        The YAML text, and the command that takes it: a key of `MODELS`.

    Raises
    ------
    GradscopeError
        There is no such preset.
    """
    names = [name.removesuffix(".yaml") for name in presets()]
    name = preset.removesuffix(".yaml")
    if name not in names:
        raise GradscopeError(f"unknown preset {preset!r}; {one_of(name, names)}")
    path = preset_folder() / f"{name}.yaml"
    content = read_yaml(path, str(path))
    command = command_of(content)
    lines = path.read_text(encoding="utf-8").splitlines()
    header = lines[: next(i for i, line in enumerate(lines) if not line.startswith("#"))]
    return "\n".join([*header, "", commented(check(MODELS[command], content, str(path)))]), command


def command_of(content: dict[str, Any]) -> str:
    """The command that takes this configuration, by a key that only its model requires."""
    marks = {"recording": "record", "unet": "train ddpm", "timm": "train classifier", "mixtures": "oracle"}
    return next((command for key, command in marks.items() if key in content), "audit")


def commented(config: Strict) -> str:
    """A configuration as YAML: every key with its value, and a comment above it."""
    yaml, text = YAML(), StringIO()
    yaml.Representer, yaml.width = _Representer, _WIDTH
    yaml.dump(_section(config, 0), text)
    return text.getvalue()


class _Representer(RoundTripRepresenter):
    """Writes null in full, where ruamel leaves the value out."""


_Representer.add_representer(type(None), lambda self, data: self.represent_scalar("tag:yaml.org,2002:null", "null"))


def _section(config: Strict, indent: int) -> CommentedMap:
    out = CommentedMap()
    for name, key in section(type(config)).items():
        blank = "\n" if out and not indent else ""
        out[name] = _value(getattr(config, name), indent + 2)
        comment = blank + _comment(key, _WIDTH - 2 - indent)
        out.yaml_set_comment_before_after_key(name, before=comment, indent=indent)
    return out


def _comment(key: Key, width: int) -> str:
    """Description of a key, then its values and default; in one line if they fit."""
    values = f"({key.possible})" if key.possible else ""
    whole = f"{key.description} {values}".rstrip()
    parts = [whole] if len(whole) <= width else [key.description, values]
    return "\n".join(
        line for part in parts for line in wrap(part, width, break_long_words=False, break_on_hyphens=False)
    )


def _value(value: Any, indent: int, flow: bool = False) -> Any:
    """A value for ruamel: sections and mappings in blocks, lists and what lies in mappings in one line."""
    if isinstance(value, Strict):
        return _section(value, indent)
    if isinstance(value, dict):
        mapping = CommentedMap((key, _value(inner, indent + 2, flow=True)) for key, inner in value.items())
        if flow or not value:
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq(_value(inner, indent, flow=True) for inner in value)
        sequence.fa.set_flow_style()
        return sequence
    return value
