"""What a signature found: the record that tables, reports and dashboards show."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

Severity = Literal["alarm", "warning", "remark"]
"""An alarm says that guidance fails, a warning that something is to be looked at, a remark what one might mistake for a
fault, or cannot yet tell."""
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
    first_timestep: int | None
    """Where it begins, in sampling order (so the larger one); None where it is not about timesteps."""
    last_timestep: int | None
    affected: int
    """Number of samples that show it,"""
    samples: int
    """of so many."""
    effect: float
    """The statistic that the test looks at,"""
    low: float
    high: float
    """its 95 % interval (where single samples show it: the smallest and largest of them),"""
    threshold: float
    """and the value that it crossed."""
    evidence: str
    """In words, with numbers."""
    advice: str
    """What to try next."""
    target_class: str = ""
    """The target class whose samples alone show it; empty where it is all of them."""

    @property
    def cell(self) -> dict[str, str | float]:
        """Selects the cell: ``ds.sel(finding.cell)``."""
        return {
            "classifier": self.classifier,
            "classifier_input": self.classifier_input,
            "stabilizer": self.stabilizer,
            "guidance_scale": self.guidance_scale,
        }


def of_outcome(
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
    span: tuple[int, int] | None = None,
) -> Finding:
    """A finding about final samples: `value` is the effect with its interval, `span` its timesteps if it has any."""
    first, last = span or (None, None)
    effect, low, high = value
    return Finding(
        signature=signature,
        severity=severity,
        **where,
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
    """Alarms before warnings before remarks, and within them by the share of samples affected."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.affected / max(f.samples, 1), f.signature))


def table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Findings as a data frame, one row each, in the order given."""
    columns = list(Finding.__dataclass_fields__)
    rows = pd.DataFrame([asdict(finding) for finding in findings], columns=columns)
    return rows.astype({"first_timestep": "Int64", "last_timestep": "Int64"})  # whole numbers, or <NA>
