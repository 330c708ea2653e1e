"""`gradscope check`: its exit statuses and what it prints."""

import json

import pytest
from typer.testing import CliRunner

from gradscope.cli.commands import app
from gradscope.errors import GradscopeError

CODE = """
import torch


def right():
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    return {"cond_fn": lambda x, t: -x, "energy": lambda x, t: -x.square().sum(dim=1) / 2, "x_t": x, "t": 3}


def wrong():
    return right() | {"cond_fn": lambda x, t: x}


def loop():
    from watched_loops import LABELS, Plain

    plain = Plain()
    energy = lambda x, t: plain.guide(x).log_softmax(dim=1)[range(4), LABELS]
    return {"loop": plain, "energy": energy, "labels": LABELS, "steps": 2, **plain.watched}


def unknown():
    return right() | {"cond": 1}


def few():
    return {"energy": len}


def none():
    return None


def fails():
    raise ValueError("no luck")
"""


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    (tmp_path / "checked_code.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def run(*arguments):
    return CliRunner().invoke(app, ["check", *arguments])


@pytest.mark.parametrize(
    ("name", "status", "text"), [("right", 0, "right"), ("wrong", 1, "wrong_sign"), ("loop", 0, "right")]
)
def test_status_of_code(name, status, text):
    found = run(f"checked_code:{name}")
    assert found.exit_code == status, found.output
    assert found.output.startswith(text)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["checked_code:unknown"], "returned 'cond'; did you mean 'cond_fn'?"),
        (["checked_code:few"], "must return cond_fn, x_t, t, too"),
        (["checked_code:none"], "must return the arguments of gradscope.check by name, a dict; got NoneType"),
        (["checked_code:fails"], "raised ValueError: no luck"),
        (["checked_code:absent"], "checked_code has no 'absent'"),
        (["checked_code"], "takes package.module:function, got 'checked_code'"),
        ([], "takes your code, as package.module:function, or --config"),
        (["checked_code:right", "--set", "a=1"], "it goes with --config"),
        (
            [
                "--config",
                "mixture.yaml",
                "--set",
                "guidance.method=mpgd",
                "--set",
                "guidance.classifier_input=[x0_detached]",
            ],
            "only the method classifier",
        ),
    ],
)
def test_bad_input(arguments, text):
    found = run(*arguments)
    assert isinstance(found.exception, GradscopeError)
    assert found.exception.exit_status == 2
    assert text in str(found.exception)


@pytest.mark.parametrize(
    "changes",
    [
        "guidance.classifier_input=[x_t,x0,x0_detached]",
        "guidance.objective=logit",
        "sampling.scheduler=ddim",
        "sampling.scheduler=euler",
        "sampling.scheduler=dpm_solver_multistep",
    ],
)
def test_a_configuration_is_checked_cell_by_cell(changes):
    found = run("--config", "points.yaml", "--timesteps", "2", "--set", changes)
    assert found.exit_code == 0, found.output
    assert "all are right" in found.output


def test_a_sampler_with_a_fault_is_found(monkeypatch):
    from gradscope.sampling.guidance.classifier import ClassifierGuidance

    right = ClassifierGuidance.evaluate

    def doubled(*arguments, **named):
        from dataclasses import replace

        found = right(*arguments, **named)
        return replace(found, gradient=2 * found.gradient)

    monkeypatch.setattr(ClassifierGuidance, "evaluate", doubled)
    found = run("--config", "points.yaml", "--timesteps", "1")
    assert found.exit_code == 1
    assert "doubled" in found.output


@pytest.mark.parametrize(("name", "status", "count"), [("right", 0, 1), ("wrong", 1, 1), ("loop", 0, 3)])
def test_answers_are_saved_and_the_status_stays(name, status, count, tmp_path):
    found = run(f"checked_code:{name}", "--out", str(tmp_path / "a.json"))
    assert found.exit_code == status, found.output
    assert "wrote" in found.output
    saved = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert (saved["source"], saved["right"], len(saved["answers"])) == (f"checked_code:{name}", not status, count)


def test_answers_do_not_replace_a_file_nor_have_another_ending(tmp_path):
    (tmp_path / "a.json").write_text("mine", encoding="utf-8")
    for out, further, text in (
        ("a.json", [], "exists"),
        ("a.txt", [], "NAME.json"),
        ("no/a.json", [], "is no folder"),
    ):
        with pytest.raises(GradscopeError, match=text):
            _raised("checked_code:right", "--out", str(tmp_path / out), *further)
    with pytest.raises(GradscopeError, match="history"):
        _raised("history", "--out", str(tmp_path / "b.json"))
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == "mine"
    assert run("checked_code:right", "--out", str(tmp_path / "a.json"), "--overwrite").exit_code == 0
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["right"] is True


def _raised(*arguments):
    found = run(*arguments)
    assert found.exception is not None
    raise found.exception
