"""The table of diagnostics: what every probe records. `diagnostics` alone knows where it comes from."""

from typing import NamedTuple

from markdown_tables import code, table


class Diagnostic(NamedTuple):
    """One recorded variable."""

    name: str
    long_name: str
    units: str
    dims: tuple[str, ...]
    """Besides the cell, sample and timestep."""
    equation: str
    probe: str
    """Entry under ``probes`` of a configuration; empty where it is always recorded."""


def diagnostics() -> list[Diagnostic]:
    """Every variable that a probe of gradscope's records, in the order of the probes."""
    from torch import nn

    from probes import NAMED, FiniteFraction

    needed = {"reference": {"classifier": nn.Identity()}, "layers": {"names": ["classifier"]}}
    groups = {"": [FiniteFraction()]} | {name: make(**needed.get(name, {})) for name, make in NAMED.items()}
    return [
        Diagnostic(v.name, v.long_name, v.units, v.dims, v.equation, name)
        for name, probes in groups.items()
        for probe in probes
        for v in probe.variables
    ]


def text() -> str:
    """A section for each probe, a row for each diagnostic."""
    rows = diagnostics()
    parts = []
    for probe in dict.fromkeys(row.probe for row in rows):
        mine = [row for row in rows if row.probe == probe]
        parts.append(f"## {code(probe) if probe else 'Always recorded'}\n")
        parts.append(
            table(
                ("name", "is", "unit", "further dims", "equation"),
                [
                    (anchored(row.name), row.long_name, row.units, ", ".join(row.dims) or "-", code(row.equation))
                    for row in mine
                ],
            )
        )
    return "\n".join(parts)


def anchored(name: str) -> str:
    """The name, as code that links of other pages lead to."""
    return f'<span id="{name}"></span>{code(name)}'
