"""The table of a check: one row for each gradient that was checked, and the text beside it."""

from collections.abc import Mapping
from typing import Any

from dashboards.widgets.grid import Column, Row, badge, badge_column, number_column, text_column
from gradscope.reporting.check_file import Answer, CheckFile

_BADGES = {"fault": "alarm", "undecided": "warning"}
_RIGHT = "✓"
_WHOLE = "whole loop"
_COSINE = "of the code's gradient c with the energy's gradient g, in the worst sample"
_DEVIATION = "|c - g| / max(|c|, |g|), in the worst sample"
_ALLOWED = "part of the deviation that rounding explains"
_CONFIDENCE = "high: every element was compared; medium: some directions; low: much is rounding; none: nothing"


def columns(found: CheckFile) -> list[Column]:
    """The columns for which there are answers."""
    places = {
        "guide": text_column("guide", "guide", 110),
        "classifier_input": text_column("classifier_input", "input", 90, headerTooltip="classifier_input"),
        "timestep": number_column("timestep", "timestep", 90, "text(params.data.at)"),
    }
    wrong = any(each.kind != "right" for each in found.answers)
    known = [name for name in places if any(getattr(each, name) not in ("", None) for each in found.answers)]
    return [
        *(places[name] for name in known),
        badge_column("verdict", "verdict", 150),
        *([text_column("cause", "cause", 150)] if any(each.cause for each in found.answers) else []),
        number_column("cosine", "cosine", 80, headerTooltip=_COSINE),
        number_column("deviation", "deviation", 86, headerTooltip=_DEVIATION),
        number_column("allowed", "allowed", 80, headerTooltip=_ALLOWED),
        text_column("confidence", "confidence", 90, headerTooltip=_CONFIDENCE),
        *([text_column("advice", "what to change", 250)] if wrong else []),
    ]  # fmt: skip


def rows(found: CheckFile) -> list[Row]:
    """One row for each answer, in the order of the file."""
    return [_row(str(i), answer) for i, answer in enumerate(found.answers)]


def first(rows_: list[Row]) -> Row:
    """The row that is described at first: the first that is not right, else the first."""
    return next((row for row in rows_ if not row["verdict"].startswith(_RIGHT)), rows_[0])


def _row(id: str, answer: Answer) -> dict[str, Any]:
    at = _WHOLE if answer.timestep is None else f"{answer.timestep:g}"
    name = f"{answer.verdict} ({answer.cause})" if answer.cause else answer.verdict
    place = [answer.guide, answer.classifier_input, "" if answer.timestep is None else f"timestep {at}"]
    wrong = answer.kind != "right"
    return {
        "id": id,
        "guide": answer.guide,
        "classifier_input": answer.classifier_input,
        "timestep": answer.timestep,
        "at": at,
        "verdict": badge(_BADGES[answer.kind], answer.verdict) if wrong else f"{_RIGHT} {answer.verdict}",
        "cause": answer.cause,
        **{key: _number(answer.evidence, key) for key in ("cosine", "deviation", "allowed")},
        "confidence": answer.confidence,
        "advice": answer.advice if wrong else "",
        "name": ", ".join(filter(None, place)) + (": " if any(place) else "") + name,
        "meaning": answer.meaning,
        "evidence": "\n".join(f"{key}: {_shown(value)}" for key, value in answer.evidence.items()),
        "others": "\n".join(f"{verdict} ({cause})" if cause else verdict for verdict, cause in answer.others),
        "remarks": "\n".join(answer.remarks),
        "needs": "\n".join(f"{verdict}: {why}" for verdict, why in answer.needs.items()) if wrong else "",
    }  # fmt: skip


def _number(evidence: Mapping[str, Any], key: str) -> float | None:
    value = evidence.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
