"""What a signature found: the record that tables, reports and dashboards show."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pandas as pd

from gradscope.store.dims import CELL_DIMS

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
    first_timestep: float | None
    """Where it begins, in sampling order (so the larger one); None where it is not about timesteps."""
    last_timestep: float | None
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
    further: Mapping[str, str | float] = field(default_factory=dict)
    """The cell's names along dimensions of the store beside the four, such as ``method``."""

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


def at(where: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `Finding` that say in which cell it is."""
    four = {dim: value for dim, value in where.items() if dim in CELL_DIMS}
    return four | {"further": {dim: value for dim, value in where.items() if dim not in CELL_DIMS}}


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
    span: tuple[float, float] | None = None,
) -> Finding:
    """A finding about final samples: `value` is the effect with its interval, `span` its timesteps if it has any."""
    first, last = span or (None, None)
    effect, low, high = value
    return Finding(
        signature=signature,
        severity=severity,
        **at(where),
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
    found = list(findings)
    columns = [name for name in Finding.__dataclass_fields__ if name != "further"]
    own = list(dict.fromkeys(dim for finding in found for dim in finding.further))
    rows = pd.DataFrame([asdict(finding) | dict(finding.further) for finding in found], columns=[*columns, *own])
    times = [rows["first_timestep"], rows["last_timestep"]]
    whole = all(float(t).is_integer() for column in times for t in column.dropna())
    kind = "Int64" if whole else "Float64"  # numbers, or <NA>
    return rows.astype({"first_timestep": kind, "last_timestep": kind})
