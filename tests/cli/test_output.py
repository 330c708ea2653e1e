"""Standard output that cannot be written, and commands that are printed: both by real processes and shells."""

import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import xarray as xr
from nursery import nursery
from small_run import config, environment

from gradscope import cli
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

LOST = "gradscope: standard output could not be written: No space left on device"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    found = tmp_path_factory.mktemp("here")
    record_run(prepare(config(found / "run.zarr"), "cpu"))
    (found / "run.json").write_text(config("full.zarr").model_dump_json())  # JSON is YAML
    (found / "out").symlink_to("/dev/full")
    return found


@pytest.fixture(scope="module")
def gradscope(folder) -> Iterator[Callable[..., tuple[int, str]]]:
    """Run the command line with a full standard output: exit status and standard error."""
    with nursery(folder) as processes:
        yield lambda *arguments: processes.run(*arguments)[::2]


@pytest.mark.slow
def test_a_process_of_its_own_says_it_too(folder):
    """Those of the other tests are forked."""
    with open("/dev/full", "w") as target:
        done = subprocess.run(
            [sys.executable, "-m", "gradscope", "info", "run.zarr"],
            cwd=folder, env=environment(), stdout=target, stderr=subprocess.PIPE, text=True, timeout=300,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"{LOST}; everything else is done\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["info", "run.zarr"],
        ["verify", "run.zarr"],
        ["report", "run.zarr", "--html", "run.html"],
        ["report", "run.zarr", "--json"],
        ["evaluate", "run.zarr", "--device", "cpu"],
    ],
    ids=" ".join,
)
def test_a_full_output_is_one_line_and_a_status(folder, gradscope, arguments):
    assert gradscope(*arguments) == (1, f"{LOST}; everything else is done\n")
    if "--html" in arguments:
        assert (folder / "run.html").read_text().rstrip().endswith("</html>")


def test_a_dashboard_whose_address_cannot_be_told_ends(gradscope):
    assert gradscope("dashboard", "run.zarr", "--port", "0") == (2, f"{LOST}\n")


@pytest.mark.slow
def test_a_recording_loses_nothing_by_a_full_output(folder, gradscope):
    told = gradscope("record", "--config", "run.json", "--device", "cpu")
    assert told == (1, f"{LOST}; everything else is done\n")
    ds, whole = xr.open_zarr(folder / "full.zarr"), xr.open_zarr(folder / "run.zarr")
    assert ds.attrs["status"] == "complete"
    assert "judge_prediction" in ds  # and it was judged
    for name in whole.data_vars:
        assert ds[name].values.tobytes() == whole[name].values.tobytes(), name


def test_an_error_is_the_only_line_even_then(gradscope):
    status, err = gradscope("info", "absent.zarr")
    assert (status, err) == (2, "gradscope: absent.zarr is not a zarr store (no zarr.json in it)\n")


LONG = "a" * 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["record", "--config", "run.json", "--store", f"{LONG}.zarr"],
        ["record", "--config", "run.json", "--set", f"recording.path=there/{LONG}/a.zarr"],
        ["record", "--config", f"{LONG}.yaml"],
        ["record", "--resume", f"{LONG}.zarr"],
        ["info", LONG],
        ["verify", LONG],
        ["report", LONG],
        ["report", "run.zarr", "--html", f"{LONG}.html"],
        ["evaluate", LONG],
        ["audit", "--config", "audit.yaml", "--out", f"{LONG}.zarr"],
        ["audit", "--config", "audit.yaml", "--set", f"data={{name: image_folder, path: {LONG}}}"],
    ],
    ids=lambda arguments: " ".join(arguments).replace(LONG, "LONG"),
)
def test_a_path_that_is_too_long_is_one_line(folder, arguments, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["gradscope", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert err.count("\n") == 1
    assert err.startswith("gradscope: ")
    assert LONG in err


@pytest.mark.slow
def test_printed_commands_can_be_pasted_whatever_the_path(folder, monkeypatch, capsys):
    """Every command that is printed with a path is split by a shell into the words it was made of."""
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "60")
    name = "my run; echo $HOME 'x'.zarr"
    monkeypatch.setattr(
        sys, "argv", ["gradscope", "record", "--config", "run.json", "--store", name, "--device", "cpu"]
    )
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert not ended.value.code
    printed = capsys.readouterr().out.splitlines()
    for command in ("report", "evaluate"):
        (line,) = [text for text in printed if f"gradscope {command} " in text]
        assert shlex.split(line[line.index("gradscope ") :]) == ["gradscope", command, name]
    assert shlex.split(xr.open_zarr(name).attrs["command"]) == sys.argv
    with pytest.raises(SystemExit):
        cli.main()  # it exists
    err = capsys.readouterr().err
    assert shlex.split(err[err.index("--resume") : err.index("), or")]) == ["--resume", name]
