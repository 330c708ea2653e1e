"""The stabilisers with their settings, from their classes."""

import re
from dataclasses import fields
from inspect import getdoc

from markdown_tables import code, table

from gradscope.stabilizers import METHODS, PRESETS


def text() -> str:
    """A row for each method, and a table of the presets."""
    rows = []
    for name, method in METHODS.items():
        settings = ", ".join(f"{field.name}: {_yaml(field.default)}" for field in fields(method))
        rows.append((code(name), code(settings) if settings else "none", _update(getdoc(method) or "")))
    presets = [(code(name), code(repr(preset))) for name, preset in PRESETS.items()]
    return "\n".join([table(("method", "settings and defaults", "update"), rows), table(("preset", "is"), presets)])


def _update(doc: str) -> str:
    """A docstring's first part, and its parameters; the sections after them are on the page of the classes."""
    about, _, further = doc.partition("\nParameters\n----------\n")
    parameters = further.partition("\nRaises\n")[0]
    settings = re.sub(r"^(\w+)\n", r"<br>`\1`: ", parameters, flags=re.M)
    return " ".join(f"{about} {settings}".split())


def _yaml(value: object) -> str:
    return (
        str(list(value))
        if isinstance(value, tuple)
        else str(value).lower()
        if isinstance(value, bool)
        else f"{value:g}"
    )
