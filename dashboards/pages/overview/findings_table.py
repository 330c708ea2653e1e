"""The table of findings: the signature, the cell, the size of the effect, and a link to a sample that shows it."""

from collections.abc import Iterable
from math import prod

from dashboards.data.finding_key import finding_key, finding_name
from dashboards.data.open_run import OpenRun
from dashboards.data.shown_sample import Shown, needed, shown_sample
from dashboards.widgets.finding_link import finding_state
from dashboards.widgets.grid import Column, Row, badge, badge_column, interval_column, number_column, text_column
from gradscope.analysis.findings import Finding

_SPAN = "span(params.value, params.data.last_timestep)"
_COUNT = "of(params.value, params.data.samples)"
_EFFECT = "the statistic that is tested; the text beside the table names it"
COLUMNS: tuple[Column, ...] = (
    badge_column("severity", "severity", 92),
    text_column("signature", "signature", 110),
    text_column("classifier", "classifier", 80),
    text_column("classifier_input", "input", 46, headerTooltip="classifier_input"),
    text_column("stabilizer", "stabilizer", 78),
    number_column("guidance_scale", "scale", 50, filter=False, headerTooltip="guidance_scale"),
    number_column("first_timestep", "timesteps", 80, _SPAN, filter=False),
    number_column("affected", "samples", 94, _COUNT, headerTooltip="samples that show it", filter=False),
    interval_column("effect", "effect [95 %]", 156, headerTooltip=_EFFECT, filter=False),
    number_column("threshold", "threshold", 78, headerTooltip="threshold that the effect crosses", filter=False),
)


def finding_rows(run: OpenRun, findings: Iterable[Finding]) -> list[Row]:
    """Rows of `COLUMNS`, in the order of the findings. A row's id is its key; Enter opens what shows it."""
    ds, elements = needed(run), prod(run.sample_shape)
    return [_row(run, finding, shown_sample(ds, finding, elements)) for finding in findings]


def _row(run: OpenRun, finding: Finding, shown: Shown) -> Row:
    return {
        "id": finding_key(run, finding),
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
        "name": finding_name(finding),
        "evidence": finding.evidence,
        "advice": finding.advice,
        "why": shown.why,
        "position": shown.place,
        "href": finding_state(run, finding, shown).url(),
    }
