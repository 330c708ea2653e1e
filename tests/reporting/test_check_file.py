"""The file of `gradscope check --out`: what is written is read again, and what a stranger wrote is refused by name."""

import json

import pytest

from gradscope.checking.answers import of_cells, of_code
from gradscope.checking.checked import Checked
from gradscope.checking.configuration import CheckedCell
from gradscope.checking.loop import CheckedLoop
from gradscope.checking.verdicts import VERDICTS
from gradscope.errors import GradscopeError
from gradscope.reporting.check_file import BYTES, read, write

FAULT = Checked(
    "wrong_timestep",
    "T - 1: fixed",
    {"cosine": 0.25, "samples": 4, "deviation": float("inf"), "reference": "autograd", "flag": True},
    "medium",
    (("stale_x", ""), ("at_x0", "clamped")),
    ("a note",),
    {"order": "needs stabilizer="},
)
RIGHT = Checked("right", "", {"cosine": 1.0}, "high")


def answer(**changes):
    return {"verdict": "right", "kind": "right", "confidence": "high"} | changes


def document(*answers, **changes):
    answers = list(answers) or [answer()]
    return {"kind": "gradscope check", "version": 1, "source": "a.yaml", "right": True, "answers": answers} | changes


def test_cells_are_read_as_they_were_written(tmp_path):
    cells = [CheckedCell("robust", "x0", 499, FAULT, 1.5), CheckedCell("robust", "x_t", 999, RIGHT, 0.5)]
    write(of_cells("both.yaml", cells), tmp_path / "a.json")
    plain = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert plain["right"] is False
    first = plain["answers"][0]
    assert first["evidence"] == {
        "cosine": 0.25, "samples": 4, "deviation": "inf", "reference": "autograd", "flag": True,
    }  # fmt: skip
    assert (first["guide"], first["classifier_input"], first["timestep"]) == ("robust", "x0", 499.0)
    assert (first["meaning"], first["advice"]) == (
        VERDICTS["wrong_timestep"].meaning,
        VERDICTS["wrong_timestep"].advice,
    )
    assert first["others"] == [["stale_x", ""], ["at_x0", "clamped"]]
    assert read(tmp_path / "a.json").model_dump(mode="json") == plain


def test_of_a_loop_the_whole_comes_first_and_decides(tmp_path):
    loop = CheckedLoop("right", "", {}, "high", steps=((900.0, RIGHT), (0.0, Checked("saturated"))))
    write(of_code("mine:loop", loop), tmp_path / "a.json")
    found = read(tmp_path / "a.json")
    assert found.right
    assert [(each.timestep, each.kind) for each in found.answers] == [(None, "right"), (900.0, "right"), (0.0, "fault")]


@pytest.mark.parametrize("verdict", VERDICTS)
def test_every_verdict_has_the_form(verdict, tmp_path):
    write(of_code("mine:f", Checked(verdict)), tmp_path / "a.json")
    (found,) = read(tmp_path / "a.json").answers
    assert (found.verdict, found.kind) == (verdict, VERDICTS[verdict].kind)


REFUSED = {
    "not json": (b"{", "cannot be read as JSON"),
    "not utf-8": (b"\xff\xfe{}", "cannot be read as JSON"),
    "a list": (b"[]", "not the answers of `gradscope check`"),
    "another kind": (json.dumps({"kind": "x"}).encode(), "not the answers of"),
    "another version": (document(version=2), "version must be 1"),
    "nested deep": (b'{"kind": "gradscope check", "answers": ' + b"[" * 60 + b"]" * 60 + b"}", "nested more than 25"),
    "nested beyond the parser": (b"[" * 200_000, "JSON"),
    "no answers": (document(answers=[]), "answers"),
    "too many answers": (document(*[{}] * 10_001), "answers"),
    "a verdict that is markup": (document(answer(verdict="<b>x</b>")), "a name in small letters"),
    "an unknown kind of verdict": (document(answer(kind="fine")), "kind"),
    "a timestep that is text": (document(answer(timestep="5")), "timestep"),
    "a number that is none": (document(answer(timestep=float("nan"))), "timestep"),
    "a long text": (document(answer(cause="x" * 5000)), "cause must be a text of at most 4096"),
    "evidence that is nested": (document(answer(evidence={"a": {"b": 1}})), "evidence"),
    "too much evidence": (document(answer(evidence={str(i): i for i in range(201)})), "evidence"),
    "three names of another cause": (document(answer(others=[["a", "b", "c"]])), "others"),
    "a right that is a number": (document(right=1), "right"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_have_the_form_is_refused_by_name(name, tmp_path):
    content, reason = REFUSED[name]
    path = tmp_path / "a.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(GradscopeError, match="a.json") as caught:
        read(path)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_large_file_is_not_parsed(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(json.dumps(document()).encode() + b" " * BYTES)
    with pytest.raises(GradscopeError, match=r"more than 8.4 MB|more than 8"):
        read(path)
    with pytest.raises(GradscopeError, match="no such file"):
        read(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    ("right", "kinds", "said"),
    [
        (True, ["fault"], "right is true, but the first answer's kind is 'fault'"),
        (True, ["undecided", "right"], "right is true, but the first answer's kind is 'undecided'"),
        (False, ["right", "right"], "right is false, but the kind of all answers is 'right'"),
        (True, ["right", "fault"], None),  # a loop, and one of its steps
        (False, ["right", "undecided"], None),
    ],
)
def test_the_verdict_is_that_of_the_answers(tmp_path, right, kinds, said):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(document(*(answer(kind=kind) for kind in kinds), right=right)))
    if said is None:
        assert read(path).right == right
    else:
        with pytest.raises(GradscopeError, match=said):
            read(path)
