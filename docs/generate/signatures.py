"""The failure signatures: thresholds from the analysis, advice and an example from runs whose fault is known."""

import re
from collections.abc import Iterator
from inspect import getdoc
from typing import NamedTuple

import xarray as xr
from markdown_tables import code, table

from gradscope.analysis import direction_signatures, outcome_signatures, pair_signatures
from gradscope.analysis.curve_signature import CurveSignature
from gradscope.analysis.findings import SEVERITIES, Finding, ranked
from gradscope.analysis.signatures import CURVES, OTHERS, find
from gradscope.analysis.synthetic import FAULTS, SIGNATURE, trajectories


class Entry(NamedTuple):
    """What the page says of one signature."""

    name: str
    severity: str
    looks_at: str
    needs: tuple[str, ...]
    threshold: str
    advice: str
    example: str


def signatures() -> list[Entry]:
    """Every signature: alarms first, then in the order of the analysis."""
    found = examples()
    curves = [_of_curve(curve, found[curve.name]) for curve in CURVES]
    others = [_of_outcome(name, needs, found[name]) for name, needs in OTHERS.items()]
    return sorted([*curves, *others], key=lambda entry: SEVERITIES.index(entry.severity))


def examples() -> dict[str, Finding]:
    """By signature: the most severe that is found in drawn trajectories that have the fault."""
    found: dict[str, Finding] = {}
    for finding in ranked(_found()):
        found.setdefault(finding.signature, finding)
    return found


def _found() -> Iterator[Finding]:
    for fault in FAULTS:
        yield from (f for f in find(trajectories(fault)) if f.signature == SIGNATURE.get(fault, fault))
    white_noise, healthy = trajectories("white_noise"), trajectories()
    yield from (f for f in find(white_noise) if f.signature in ("noise_dominated", "high_frequency"))
    yield from (f for f in find(trajectories("undone", samples=256)) if f.signature == "ineffective")
    yield from find(healthy.assign(score_cosine=healthy["score_cosine"] - 0.5))
    smooth = trajectories(seed=1, accuracy=0.6).assign_coords(stabilizer=["smooth"])
    yield from find(xr.concat([healthy, smooth], "stabilizer", data_vars="all", join="outer"))


def _of_curve(curve: CurveSignature, example: Finding) -> Entry:
    part = "all" if curve.sustained == 1 else f"at least {100 * curve.sustained:g} %"
    threshold = f"{curve.side} {curve.threshold:.4g} over {part} of the guided timesteps"
    return Entry(
        curve.name, curve.severity, curve.label.rstrip(","), curve.needs, threshold, curve.advice, example.evidence
    )


def _of_outcome(name: str, needs: tuple[str, ...], example: Finding) -> Entry:
    room = next(room for room in (direction_signatures, outcome_signatures, pair_signatures) if hasattr(room, name))
    said = (getdoc(getattr(room, name)) or "").split("\n\nParameters")[0]
    # A docstring names its thresholds by their constants.
    looks_at = re.sub(r"`([A-Z]+)`", lambda found: f"{getattr(room, found[1]):g}", said)
    return Entry(name, example.severity, looks_at, needs, f"{example.threshold:g}", example.advice, example.evidence)


def text() -> str:
    """An overview, and a section for each signature."""
    entries = signatures()
    overview = table(
        ("signature", "severity", "threshold"),
        [(f"[{code(e.name)}](#{e.name})", e.severity, e.threshold) for e in entries],
    )
    return "\n".join([overview, *(_section(entry) for entry in entries)])


def _section(entry: Entry) -> str:
    rows = [
        ("severity", entry.severity),
        ("looks at", entry.looks_at),
        ("needs", ", ".join(code(name) for name in entry.needs)),
        ("threshold", entry.threshold),
        ("try", entry.advice),
        ("reads, for example", entry.example),
    ]
    return f"## {code(entry.name)} {{#{entry.name}}}\n\n" + table(("", ""), rows)
