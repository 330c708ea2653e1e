"""The table of diagnostics, as pages."""

from markdown_tables import code, table

from probes.catalogue import CATALOGUE
from probes.variable import TENSOR, Variable

_HEAD = ("name", "is", "unit", "range", "equation", "further dims", "thresholds")


def diagnostics() -> list[Variable]:
    """Every variable that a probe of gradscope's records. This function alone knows where the table is."""
    return list(CATALOGUE.values())


def text() -> str:
    """A section for each probe, a row for each diagnostic."""
    rows = sorted(diagnostics(), key=lambda row: row.probe != "")
    parts = []
    for probe in dict.fromkeys(row.probe for row in rows):
        parts.append(f"## {code(probe) if probe else 'Always recorded'}\n")
        mine = [_row(row) for row in rows if row.probe == probe]
        parts.append(table(_HEAD, mine))
    return "\n".join(parts)


def _row(row: Variable) -> tuple[str, ...]:
    thresholds = ", ".join(f"[{code(name)}](signatures.md#{name}) {value:g}" for name, value in row.thresholds.items())
    return (
        f'<span id="{row.name}"></span>{code(row.name)}',  # which links of other pages lead to
        row.long_name,
        row.units,
        code(_range(row)) + (", logarithmic" if row.logarithmic else ""),
        code(row.equation),
        "those of a sample" if row.dims == TENSOR else ", ".join(row.dims) or "-",
        thresholds or "-",
    )


def _range(row: Variable) -> str:
    """As an interval."""
    low = "(-inf" if row.low is None else f"[{row.low:g}"
    high = "inf)" if row.high is None else f"{row.high:g}]"
    return f"{low}, {high}"
