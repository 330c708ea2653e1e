"""The table of findings: what fails, where, how sure, and the tensor that shows it."""

from collections.abc import Iterable
from math import prod

from dashboards.data.library import Recorded
from dashboards.pages.overview.worst_sample import Exhibit, exhibit
from dashboards.widgets.grid import Column, Row, badges, interval, marked, number, words
from dashboards.widgets.links import into
from gradscope.analysis.curve_signatures import CURVES
from gradscope.analysis.findings import Finding
from gradscope.plots.style import cell_name
from probes.variable import IMAGE_DIMS

_AFFECTED = "samples that show it"
_EFFECT = "the statistic that the test looks at; the text beside the table says which"
COLUMNS: tuple[Column, ...] = (
    badges("severity", "severity", 86),
    words("signature", "signature", 116),
    words("classifier", "classifier", 100),
    words("classifier_input", "input", 72, headerTooltip="classifier_input"),
    words("stabilizer", "stabilizer", 92),
    number("guidance_scale", "scale", 62, filter=False, headerTooltip="guidance_scale"),
    number("first_timestep", "timesteps", 92, "span(params.value, params.data.last_timestep)", filter=False),
    number("affected", "samples", 72, "of(params.value, params.data.samples)", headerTooltip=_AFFECTED, filter=False),
    interval("effect", "effect [95 %]", 172, headerTooltip=_EFFECT, filter=False),
    number("threshold", "threshold", 78, headerTooltip="the value that it crossed", filter=False),
)
_SHOWS = {curve.name: curve.needs for curve in CURVES} | {
    "adversarial": ("log_prob", "gradient_cosine"),
    "undone": ("log_prob", "gradient_lag_cosine"),
    "unrelated_update": ("update_gradient_cosine",),
}
"""Diagnostics to look at, by signature."""


def finding_rows(run: Recorded, findings: Iterable[Finding]) -> list[Row]:
    """Rows of `COLUMNS`, in the order of the findings; each leads to the sample that shows it worst."""
    names = {"finite_fraction", "log_prob", "margin", "update_gradient_cosine"}
    names = names.union(*(curve.needs for curve in CURVES))
    ds = run.scalars("written", *sorted(names & set(run.ds)))
    elements = prod(run.ds.sizes[dim] for dim in IMAGE_DIMS if dim in run.ds.sizes)
    return [_row(run, str(i), finding, exhibit(ds, finding, elements)) for i, finding in enumerate(findings)]


def _row(run: Recorded, id: str, finding: Finding, at: Exhibit) -> Row:
    cell = run.cells.index(finding.cell)
    state = into(run, cell, _SHOWS.get(finding.signature, ()))
    return {
        "id": id,
        "severity": marked(finding.severity, finding.severity),
        "signature": finding.signature,
        **finding.cell,
        "first_timestep": finding.first_timestep,
        "last_timestep": finding.last_timestep,
        "affected": finding.affected,
        "samples": finding.samples,
        "effect": finding.effect,
        "effect_low": finding.low,
        "effect_high": finding.high,
        "threshold": finding.threshold,
        "name": f"{finding.signature}: {cell_name(finding.cell)}",
        "evidence": finding.evidence,
        "advice": finding.advice,
        "place": f"sample {at.sample} at t = {at.timestep}",
        "href": state.to("trajectory", timestep=at.timestep, sample=at.sample).url(),
    }
