"""`gradscope check history`: exit statuses, the table and the sentence."""

import sys

import pytest

from gradscope import cli
from gradscope.checking.checked import Checked
from gradscope.checking.history import FAULTS, trial


@pytest.fixture
def gradscope(monkeypatch, capsys):
    """Run the command line in this process: exit status, standard output, standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradscope", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


@pytest.mark.parametrize(("verdict", "status", "named"), [("doubled", 0, 1), ("scaled", 1, 0)])
def test_the_status_says_whether_all_are_named(gradscope, monkeypatch, verdict, status, named):
    given = [trial.Answer("planner", FAULTS["doubled"], 0, Checked(verdict))]
    monkeypatch.setattr(trial, "answers", lambda seeds: given * seeds)
    got, out, _ = gradscope("check", "history", "--seeds", "3")
    assert got == status
    assert verdict in out
    assert f"{3 * named} of 3 named, 0 false alarms in 0 checks of correct loops (3 seeds)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mine:guidance", "--seeds", "2"], "--seeds: goes with history"),
        (["--config", "both.yaml", "--seeds", "2"], "--seeds: goes with history"),
        (["history", "--config", "both.yaml"], "one of both"),
        (["history", "--seeds", "0"], "greater than or equal to 1"),
    ],
)
def test_options_of_something_else_are_refused(gradscope, arguments, message):
    status, out, err = gradscope("check", *arguments)
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.slow
def test_all_are_named(gradscope):
    status, out, _ = gradscope("check", "history")
    assert status == 0
    total = sum(len(fault.loops) for fault in FAULTS.values())
    assert total >= 36
    assert f"{total} of {total} named, 0 false alarms in 15 checks of correct loops (1 seed)" in out
