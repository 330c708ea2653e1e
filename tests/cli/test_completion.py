"""The shell completes commands, presets and stores."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from gradscope.cli.commands import app
from gradscope.config import presets

COMMAND = Path(sys.executable).with_name("gradscope")
pytestmark = pytest.mark.skipif(not COMMAND.is_file(), reason="gradscope is not installed as a command")


def run(*words: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(COMMAND), *words],
        env=os.environ | {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"} | environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout


def complete(line: str, folder: Path) -> list[str]:
    """What bash offers at the end of a line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": "\n".join(words), "COMP_CWORD": str(len(words) - 1), "_GRADSCOPE_COMPLETE": "complete_bash"}
    return run(folder=folder, **asked).split()


@pytest.fixture
def here(tmp_path):
    for name in ("a.zarr", "runs/both.zarr", "runs/deep/er.zarr", "runs/other"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("mine.yaml", "runs/mine_too.yaml", "mine.txt"):
        (tmp_path / name).write_text("")
    return tmp_path


RUNS = sorted(name for name in presets() if not name.startswith(("train/", "audit", "oracle")))
TRAININGS = sorted(name for name in presets() if name.startswith("train/"))


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("gradscope rec", ["record"]),
        ("gradscope pro", []),  # the alias of audit is not in the list of commands either
        ("gradscope train c", ["classifier"]),
        ("gradscope record --res", ["--resume"]),
        ("gradscope record --config ", ["mine.yaml", "runs/mine_too.yaml", *RUNS]),
        ("gradscope record --config qu", ["quickstart.yaml"]),
        ("gradscope audit --config a", ["audit.yaml"]),
        ("gradscope oracle --config o", ["oracle.yaml", "oracle_full.yaml"]),
        ("gradscope oracle runs/b", ["runs/both.zarr"]),
        ("gradscope train ddpm --config t", TRAININGS),
        ("gradscope init qui", ["quickstart"]),
        ("gradscope report ", ["a.zarr", "runs/both.zarr"]),
        ("gradscope report runs/", ["runs/both.zarr", "runs/deep/er.zarr"]),
        ("gradscope dashboard a.zarr r", ["runs/both.zarr"]),
        ("gradscope record --resume a", ["a.zarr"]),
        ("gradscope evaluate nothing", []),
        ("gradscope evaluate [a", []),
    ],
)
def test_what_is_offered(here, line, offered):
    assert complete(line, here) == offered


@pytest.mark.parametrize(
    ("shell", "mark"), [("bash", "complete -o default"), ("zsh", "#compdef"), ("fish", "complete --command")]
)
def test_each_shell_gets_a_script(here, shell, mark):
    script = run("--show-completion", shell, folder=here, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    assert mark in script
    assert "_GRADSCOPE_COMPLETE=complete_" in script


@pytest.mark.parametrize(
    ("shell", "expected"),
    [("zsh", """_arguments '*: :(("record":"Record a run, every"""), ("fish", "record\tRecord a run, every cell")],
)
def test_zsh_and_fish_get_help_beside_names(here, shell, expected):
    asked = {"_TYPER_COMPLETE_ARGS": "gradscope rec", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}
    assert run(folder=here, _GRADSCOPE_COMPLETE=f"complete_{shell}", **asked).startswith(expected)


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_the_script_works_in_bash(here):
    script = run("--show-completion", "bash", folder=here, _TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION="1")
    ask = 'COMP_WORDS=(gradscope rec); COMP_CWORD=1; _gradscope_completion gradscope; echo "${COMPREPLY[@]}"'
    path = {"PATH": f"{COMMAND.parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{script}\n{ask}"], env=os.environ | path, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["record"]


def test_every_store_and_configuration_is_completed():
    """No command takes one of them without completion."""
    root = typer.main.get_command(app)
    leaves = {**root.commands, **root.commands["train"].commands}
    found = {
        (name, parameter.name)
        for name, command in leaves.items()
        for parameter in command.params
        if parameter._custom_shell_complete is not None
    }
    configurations = {
        (name, "config") for name in ("record", "audit", "check", "oracle", "probe-classifier", "ddpm", "classifier")
    }
    stores = {(name, "store") for name in ("evaluate", "oracle", "report", "info", "verify")}
    assert found == {*configurations, *stores, ("dashboard", "stores"), ("record", "resume"), ("init", "preset")}
