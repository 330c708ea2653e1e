"""Output of `gradscope report`: findings, tables of cells, the effect of each technique, untested signatures."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import xarray as xr
from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from gradscope.analysis import summary
from gradscope.analysis.cells import cell_name
from gradscope.analysis.independence import also_guides, warnings
from gradscope.cli.display.tables import further_tables, summary_tables
from gradscope.reporting.report import Report, grouped, headline, multiplicity

_COLOURS = {"alarm": "bold red", "warning": "bold yellow", "remark": "bold"}
_INDENT = (0, 0, 0, 2)


def report_parts(report: Report, ds: xr.Dataset, width: int = 80) -> Iterator[RenderableType]:
    """The parts of a report in the order of printing, for a terminal of `width` columns."""
    yield Text(f"Findings: {headline(report.findings, len(report.cells))}", style="bold")
    yield from (Text(remark) for remark in report.remarks)
    yield from _findings(report)
    if report.findings:
        yield Text(f"\n{multiplicity(report.tests)}", style="italic")
    tables = summary_tables(summary(ds), warnings(also_guides(ds)).get("judge", ""), width)
    if "evaluation" in ds.attrs:
        tables += further_tables(ds)
    if report.comparisons["accuracy"].notna().any():
        tables.append(_effects(report.comparisons))
    for table in tables:
        yield ""
        yield table
    if report.untested:
        yield Text("\nNot tested", style="italic")
        yield from (Padding(Text(f"{name}: {reason}"), _INDENT) for name, reason in report.untested.items())


def _findings(report: Report) -> Iterator[RenderableType]:
    for severity, signature, found in grouped(report.findings):
        yield Text.assemble("\n", (severity, _COLOURS[severity]), f": {signature}")
        for finding in found:
            where = [cell_name(finding.cell), f"{finding.affected} of {finding.samples} samples"]
            if finding.first_timestep is not None:
                where.insert(1, f"t = {finding.first_timestep} to {finding.last_timestep}")
            yield Padding(Text("; ".join(where), style="bold"), _INDENT)
            yield Padding(Text(finding.evidence), (0, 0, 0, 4))
        for advice in dict.fromkeys(finding.advice for finding in found):
            yield Padding(Text.assemble(("try: ", "bold green"), advice), _INDENT)


def _effects(comparisons: pd.DataFrame) -> Table:
    distances = [name for name in comparisons if f"{name}_low" in comparisons and name != "accuracy"][:1]
    several = comparisons["guidance_scale"].nunique() > 1
    table = Table(title="The effect of each technique", title_justify="left", caption_justify="left", box=None)
    table.collapse_padding = True
    for head in ("classifier", "technique", "at", *(["scale"] if several else [])):
        table.add_column(head, no_wrap=True)
    for head in ("accuracy [95 %]", "p", *(f"{name} [95 %]" for name in distances)):
        table.add_column(head, justify="right", no_wrap=True)
    for row in comparisons.to_dict("records"):
        scale = [f"{row['guidance_scale']:g}"] if several else []
        numbers = [_change(row, "accuracy"), _p(row["p_holm"]), *(_change(row, name) for name in distances)]
        table.add_row(*(escape(row[name]) for name in ("classifier", "technique", "at")), *scale, *numbers)
    fewest, most = comparisons["n"].min(), comparisons["n"].max()
    few = sorted({note for note in comparisons["note"] if note})
    table.caption = (
        f"N = {fewest if fewest == most else f'{fewest} to {most}'} pairs; changes against the same cell without the "
        "technique; at: what both share; accuracy: by the judge; p: McNemar's test, Holm's correction"
        + "".join(f"; {note}" for note in few)
    )
    return table


def _change(row: dict, name: str) -> str:
    value, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "-" if np.isnan(value) else f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def _p(value: float) -> str:
    return "-" if np.isnan(value) else "<.001" if value < 0.001 else f"{value:.3f}"
