"""What a signature found: the record that tables, reports and dashboards show."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any, Literal

import pandas as pd

from gradscope.store.dims import CELL_DIMS

Severity = Literal["alarm", "warning", "remark"]
"""Alarm: guidance fails. Warning: something needs a look. Remark: it resembles a fault, or the data cannot decide."""
SEVERITIES: tuple[Severity, ...] = ("alarm", "warning", "remark")


@dataclass(frozen=True)
class Finding:
    """One failure signature, seen in one cell."""

    signature: str
    severity: Severity
    classifier: str
    classifier_input: str
    stabilizer: str
    guidance_scale: float
    first_timestep: float | None
    """Where it begins in sampling order, so the larger of the two timesteps; None for outcomes without timesteps."""
    last_timestep: float | None
    affected: int
    """Number of samples that show it."""
    samples: int
    """Number of samples that were tested."""
    effect: float
    """The statistic that the test compares with the threshold."""
    low: float
    """Lower bound of its 95 % interval; where single samples show the finding, their smallest value."""
    high: float
    """Upper bound of its 95 % interval; where single samples show the finding, their largest value."""
    threshold: float
    """The value that the statistic crossed."""
    evidence: str
    """The evidence in words, with numbers."""
    advice: str
    """What to try next."""
    target_class: str = ""
    """The target class, if only its samples show the finding; else empty."""
    further: Mapping[str, str | float] = field(default_factory=dict)
    """The cell's names along the store's further cell dimensions, such as ``method``."""

    @property
    def cell(self) -> dict[str, str | float]:
        """Selects the cell: ``ds.sel(finding.cell)``."""
        return {
            "classifier": self.classifier,
            "classifier_input": self.classifier_input,
            "stabilizer": self.stabilizer,
            "guidance_scale": self.guidance_scale,
            **self.further,
        }

    def _repr_html_(self) -> str:
        """The form in which a notebook shows the finding."""
        where = [", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in self.cell.values())]
        if self.target_class:
            where.append(f"class {self.target_class}")
        if self.first_timestep is not None:
            where.append(f"t = {self.first_timestep:g} to {self.last_timestep:g}")
        where.append(f"{self.affected} of {self.samples} samples")
        head = f"<b>{escape(self.severity)}: {escape(self.signature)}</b>; {escape('; '.join(where))}"
        return f"<p>{head}<br>{escape(self.evidence)}<br>Try: {escape(self.advice)}</p>"


def cell_fields(where: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Finding` that name its cell."""
    four = {dim: value for dim, value in where.items() if dim in CELL_DIMS}
    return four | {"further": {dim: value for dim, value in where.items() if dim not in CELL_DIMS}}


def outcome_finding(
    signature: str,
    severity: Severity,
    where: Mapping[str, Any],
    affected: int,
    samples: int,
    value: tuple[float, float, float],
    threshold: float,
    evidence: str,
    advice: str,
    target_class: str = "",
    span: tuple[float, float] | None = None,
) -> Finding:
    """A finding about final samples.

    Parameters
    ----------
    value
        The effect, and the lower and upper bound of its interval.
    span
        Its first and last timestep, if it has any.
    """
    first, last = span or (None, None)
    effect, low, high = value
    return Finding(
        signature=signature,
        severity=severity,
        **cell_fields(where),
        first_timestep=first,
        last_timestep=last,
        affected=int(affected),
        samples=samples,
        effect=effect,
        low=low,
        high=high,
        threshold=threshold,
        evidence=evidence,
        advice=advice,
        target_class=target_class,
    )


def ranked(findings: Iterable[Finding]) -> list[Finding]:
    """Sort alarms before warnings before remarks, and within each by the share of affected samples."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.affected / max(f.samples, 1), f.signature))


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a data frame: one row each, in the given order."""
    found = list(findings)
    columns = [name for name in Finding.__dataclass_fields__ if name != "further"]
    further = list(dict.fromkeys(dim for finding in found for dim in finding.further))
    rows = pd.DataFrame([asdict(finding) | dict(finding.further) for finding in found], columns=[*columns, *further])
    times = [rows["first_timestep"], rows["last_timestep"]]
    integral = all(float(t).is_integer() for column in times for t in column.dropna())
    kind = "Int64" if integral else "Float64"  # nullable: outcomes have no timestep
    return rows.astype({"first_timestep": kind, "last_timestep": kind})
