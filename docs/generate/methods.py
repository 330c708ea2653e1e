"""The guidance methods with their settings, from their files."""

import re
import sys
from dataclasses import MISSING, Field, fields
from inspect import cleandoc, getdoc
from typing import Any

from markdown_tables import code, table

from gradscope.methods import METHODS, Method

ENTERS = {
    "process": "the posterior mean of DDPM gains the vector, the score of any other process",
    "prediction": "the score gains the vector, so the noise prediction loses it",
    "x0": "x0-hat gains the vector, the noise prediction stays",
    "sample": "prev_sample gains the vector",
}


def text() -> str:
    """A section for each method: what its file says, and its settings."""
    return "\n".join(_section(name, method) for name, method in METHODS.items())


def _section(name: str, method: type[Method]) -> str:
    about = (getdoc(sys.modules[method.__module__]) or "").replace("::\n", ":\n")
    about = re.sub(r"arXiv (\d{4}\.\d{5})", r"[arXiv \1](https://arxiv.org/abs/\1)", about)
    inputs = ", ".join(code(given) for given in method.inputs)
    facts = f"Inputs: {inputs}. How it enters a step: {ENTERS[method.enters]}."
    settings = fields(method)
    if not settings:
        return f"## {name}\n\n{about}\n\n{facts} It has no settings.\n"
    said = _said(method)
    rows = [(code(field.name), code(_yaml(_default(field))), said[field.name].replace("``", "`")) for field in settings]
    return f"## {name}\n\n{about}\n\n{facts}\n\n{table(('setting', 'default', 'meaning'), rows)}"


def _said(method: type[Method]) -> dict[str, str]:
    """What the docstrings of a class and of its bases say of each setting, in the words of YAML."""
    found: dict[str, str] = {}
    for base in method.__mro__:
        _, _, entries = (cleandoc(base.__doc__ or "")).partition("Parameters\n----------\n")
        for line in entries.splitlines():
            if line and not line.startswith(" "):
                found[name := line] = ""
            elif line:
                found[name] = f"{found[name]} {line.strip()}".strip()
    return {name: said.replace("None for all", "null: all") for name, said in found.items()}


def _default(field: Field[Any]) -> object:
    assert field.default is not MISSING
    return field.default


def _yaml(value: object) -> str:
    words = {"None": "null", "True": "true", "False": "false"}
    return words.get(str(value), str(value))
