"""The answers of a check in the form of its file, see `gradscope.reporting.check_file`."""

import datetime
import math
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

from gradscope.checking.checked import Checked
from gradscope.checking.configuration import CheckedCell
from gradscope.checking.loop import CheckedLoop
from gradscope.checking.verdicts import VERDICTS
from gradscope.reporting.check_file import Answer, CheckFile


def of_cells(source: str, cells: Iterable[CheckedCell]) -> CheckFile:
    """The answers about the cells of a configuration."""
    answers = [
        _answer(
            cell.answer,
            guide=cell.classifier,
            classifier_input=cell.classifier_input,
            timestep=float(cell.timestep),
            seconds=cell.seconds,
        )
        for cell in cells
    ]
    return _file(source, answers, all(answer.kind == "right" for answer in answers))


def of_code(source: str, found: Checked) -> CheckFile:
    """The answer about a user's code; of a loop, the answer as a whole and then each of its steps."""
    steps = found.steps if isinstance(found, CheckedLoop) else ()
    return _file(source, [_answer(found), *(_answer(one, timestep=float(t)) for t, one in steps)], found.right)


def _file(source: str, answers: list[Answer], right: bool) -> CheckFile:
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return CheckFile(gradscope=version("gradscope"), created=now, source=source, right=right, answers=answers)


def _answer(found: Checked, **where: Any) -> Answer:
    return Answer(
        verdict=found.verdict,
        kind=VERDICTS[found.verdict].kind,
        cause=found.cause,
        meaning=found.meaning,
        advice=found.advice,
        confidence=found.confidence,
        evidence={name: _number(value) for name, value in found.evidence.items()},
        others=[list(other) for other in found.others],
        remarks=list(found.remarks),
        needs=dict(found.needs),
        **where,
    )


def _number(value: Any) -> bool | int | float | str:
    """A number as JSON can hold it."""
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    return value if isinstance(value, bool | int) else str(value)
