"""The table of findings: the signature, the cell, the size of the effect, and a link to the sample that shows it."""

from collections.abc import Iterable
from math import prod

from dashboards.data.open_run import OpenRun
from dashboards.pages.overview.worst_sample import Position, worst_sample
from dashboards.widgets.grid import Column, Row, badge, badge_column, interval_column, number_column, text_column
from dashboards.widgets.links import trajectory_state
from gradscope.analysis.findings import Finding
from gradscope.analysis.signatures import CURVES
from gradscope.plots.style import cell_name

_SPAN = "span(params.value, params.data.last_timestep)"
_COUNT = "of(params.value, params.data.samples)"
_EFFECT = "the statistic that is tested; the text beside the table names it"
COLUMNS: tuple[Column, ...] = (
    badge_column("severity", "severity", 86),
    text_column("signature", "signature", 116),
    text_column("classifier", "classifier", 100),
    text_column("classifier_input", "input", 72, headerTooltip="classifier_input"),
    text_column("stabilizer", "stabilizer", 92),
    number_column("guidance_scale", "scale", 62, filter=False, headerTooltip="guidance_scale"),
    number_column("first_timestep", "timesteps", 92, _SPAN, filter=False),
    number_column("affected", "samples", 72, _COUNT, headerTooltip="samples that show it", filter=False),
    interval_column("effect", "effect [95 %]", 172, headerTooltip=_EFFECT, filter=False),
    number_column("threshold", "threshold", 78, headerTooltip="threshold that the effect crosses", filter=False),
)
_VARIABLES = {curve.name: curve.needs for curve in CURVES} | {
    "adversarial": ("log_prob", "gradient_cosine"),
    "undone": ("log_prob", "gradient_lag_cosine"),
    "unrelated_update": ("update_gradient_cosine",),
}
"""Diagnostics that the link shows, by signature."""


def finding_rows(run: OpenRun, findings: Iterable[Finding]) -> list[Row]:
    """Rows of `COLUMNS`, in the order of the findings; a click opens the sample that shows the finding worst."""
    names = {"finite_fraction", "log_prob", "margin", "update_gradient_cosine"}
    names = names.union(*(curve.needs for curve in CURVES))
    ds = run.scalars("written", *sorted(names & set(run.ds)))
    elements = prod(run.sample_shape)
    return [_row(run, str(i), finding, worst_sample(ds, finding, elements)) for i, finding in enumerate(findings)]


def _row(run: OpenRun, id: str, finding: Finding, worst: Position) -> Row:
    state = trajectory_state(run, run.cells.index(finding.cell), _VARIABLES.get(finding.signature, ()))
    return {
        "id": id,
        "severity": badge(finding.severity, finding.severity),
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
        "position": f"sample {worst.sample} at t = {worst.timestep}",
        "href": state.to("trajectory", timestep=worst.timestep, sample=worst.sample).url(),
    }
