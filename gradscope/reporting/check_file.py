"""The answers of `gradscope check` in a JSON file: its form, how it is written, and how a stranger's one is read."""

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from gradscope.errors import GradscopeError
from gradscope.store.untrusted.checks import Strict, parsed, refusal, wanted
from gradscope.text import size

KIND: Literal["gradscope check"] = "gradscope check"
VERSION: Literal[1] = 1
BYTES = 8 * 2**20
"""Size of the largest file that is read."""
_ANSWERS = 10_000

Text = Annotated[str, Field(max_length=4096), wanted("a text of at most 4096 characters")]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9_]{1,64}$"), wanted("a name in small letters")]
Number = Annotated[bool | int | float | Text | None, wanted("a number, a text or null")]
_Few = Field(max_length=200)


class Answer(Strict):
    """The answer about one gradient."""

    guide: Text = ""
    """Name of the guide; empty for code that names none."""
    classifier_input: Text = ""
    """``x_t``, ``x0`` or ``x0_detached``; empty for code that declares none."""
    timestep: float | None = None
    """None for a whole loop."""
    verdict: _Name
    """See docs/reference/verdicts.md."""
    kind: Literal["right", "fault", "undecided"]
    """``undecided``: nothing could be compared."""
    cause: Text = ""
    meaning: Text = ""
    """The verdict in a sentence; c is the gradient that the code uses, g that of the energy."""
    advice: Text = ""
    """What to change."""
    confidence: Literal["high", "medium", "low", "none"]
    evidence: Annotated[dict[Text, Number], _Few] = {}
    """Numbers by name; what JSON cannot hold (NaN, infinity) is a text."""
    others: Annotated[list[Annotated[list[Text], Field(min_length=2, max_length=2)]], _Few] = []
    """Further verdicts and causes that explain the gradient as well."""
    remarks: Annotated[list[Text], _Few] = []
    needs: Annotated[dict[Text, Text], _Few] = {}
    """Verdicts that were not tested, each with the reason."""
    seconds: Annotated[float, Field(ge=0)] | None = None


class CheckFile(Strict):
    """The content of the file."""

    kind: Literal["gradscope check"] = KIND
    version: Literal[1] = VERSION
    gradscope: Text = ""
    """The version that checked."""
    created: Text = ""
    """Date and time, ISO 8601."""
    source: Text
    """The configuration, or ``package.module:function``."""
    right: bool
    """Whether the check found no fault. A loop may be right although rounding hides the gradient of some steps."""
    answers: Annotated[list[Answer], Field(min_length=1, max_length=_ANSWERS, fail_fast=True)]

    @model_validator(mode="after")
    def _is_consistent(self) -> "CheckFile":
        kinds = [answer.kind for answer in self.answers]
        if self.right and kinds[0] != "right":  # of a loop, the first answer is that of the whole
            raise ValueError(f"right is true, but the first answer's kind is {kinds[0]!r}")
        if not self.right and {*kinds} == {"right"}:
            raise ValueError("right is false, but the kind of all answers is 'right'")
        return self


def write(found: CheckFile, path: Path) -> None:
    """Write a file of answers, in place of an existing one.

    Raises
    ------
    GradscopeError
        It cannot be written.
    """
    try:
        path.write_text(f"{found.model_dump_json(indent=1)}\n", encoding="utf-8")
    except OSError as error:
        raise GradscopeError(f"{path} could not be written: {error.strerror}", key="--out") from error


def read(path: Path) -> CheckFile:
    """Read a file of answers, which may come from a stranger.

    Raises
    ------
    GradscopeError
        There is no such file, it is too large, or it does not have the form.
    """
    try:
        if not path.is_file():
            raise GradscopeError(f"{path}: there is no such file")
        with path.open("rb") as file:
            content = file.read(BYTES + 1)
    except OSError as error:
        raise GradscopeError(f"{path} cannot be read: {error.strerror}") from error
    if len(content) > BYTES:
        raise GradscopeError(f"{path} has more than {size(BYTES)}; an answer of gradscope check is smaller")
    try:
        value = parsed(content, "the file")
    except ValueError as error:
        raise GradscopeError(f"{path}: {error}") from None
    if not isinstance(value, dict) or value.get("kind") != KIND:
        raise GradscopeError(f"{path}: not the answers of `gradscope check`: its kind is not {json.dumps(KIND)}")
    try:
        return CheckFile.model_validate(value)
    except ValidationError as error:
        raise refusal(error, str(path)) from None
