"""Every command of README and docs runs, in a folder that looks like a checkout, with smaller sizes than theirs."""

import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import preloaded
import pytest
import typer
from documentation import PAGES, ROOT, blocks, prose

from gradscope.cli.commands import app

CI = (ROOT / ".ci" / "run").read_text()
SMALL = "--set sampling.samples=4 --set sampling.batch_size=4 --set sampling.num_inference_steps=6"
FEWER = f"{SMALL} --set guidance.guidance_scale=[0.5] --set guidance.classifier_input=[x_t]"
TRAINING = "--set training.steps=2 --set training.batch_size=4 --set output=out"
FEW = "--set evaluation.samples=64 --set evaluation.replicates=8"


@dataclass(frozen=True)
class How:
    """How a command is run here."""

    further: str = ""
    """Words that make it smaller, or that record into another store than an earlier command."""
    elsewhere: str = ""
    """Why it is not run here, though it is well-formed."""


HOW = {
    r".*fashion.*": How(elsewhere="it needs models that take two hours to train; test_training.py trains small ones"),
    r"make (lint|docs|test|test-slow|test-browser|test-wheel|bench)": How(elsewhere="in .ci/run"),
    r"make crash.*": How(elsewhere="it takes hours; tests/damage and tests/stateful run a part of it"),
    r"make test-gpu": How(elsewhere="it needs a GPU; the other tests rehearse it on the CPU"),
    r"python tests/exactness.py": How(elsewhere="test_exactness.py measures the same, and it would rewrite the table"),
    r"make demo": How(elsewhere="its recipe is checked, and what it runs is run"),
    r"gradscope record --config both.yaml --workers 2": How(f"--store runs/workers.zarr {FEWER}"),
    r"gradscope record --config both.yaml --scheduler .*": How(f"--store runs/cluster.zarr {FEWER}"),
    r"gradscope record --config both.yaml --store s3://bucket/both.zarr": How(FEWER),
    r"gradscope record --config both.yaml": How(f"{SMALL} --overwrite"),
    r"gradscope record --config (control|mixture|quickstart).yaml": How(f"{SMALL} --overwrite"),
    r"gradscope record --config (points|trajectories|signals).yaml.*": How(f"{SMALL} --overwrite"),
    r"gradscope record --config (table|steps|frontier|stabilizers|scales|interval).yaml( .*)?": How(
        f"{SMALL} --overwrite"
    ),
    r"python runs/(collect|results).py .*": How(),
    r"python runs/matched_strength.py .*": How(elsewhere="it searches for an hour"),
    r"gradscope record --config (mine|run).yaml": How(elsewhere="a configuration of the reader's own"),
    r"gradscope record --resume .*": How(),
    r"gradscope (report|verify|info) .*": How(),
    r"gradscope evaluate .*": How(FEW),
    r"gradscope dashboard .*": How("--port 0"),
    r"gradscope (record )?--help|gradscope --version": How(),
    r"gradscope --install-completion": How(elsewhere="it changes the files of the user's shell"),
    r"gradscope init .*": How(),
    r"gradscope check history": How(),
    r"gradscope check history --seeds 50": How(elsewhere="test_named.py checks the same, in parts"),
    r"gradscope check mine:guidance": How(
        elsewhere="it checks the reader's own code; tests/cli checks such a function"
    ),
    r"gradscope check --config both.yaml": How("--timesteps 1 --set guidance.classifier_input=[x_t]"),
    r"gradscope check --config both.yaml --out \S+": How(
        "--timesteps 1 --set guidance.classifier_input=[x_t] --overwrite"
    ),
    r"gradscope audit --config audit.yaml": How("--set samples=8 --set timesteps=2"),
    r"gradscope oracle --methods .*my_file.*": How(elsewhere="a class of the reader's own; tests/oracle runs one"),
    r"gradscope oracle \S+.zarr": How(),
    r"gradscope oracle.*": How(
        "--mixtures points-separated-2 --guides exact,clean --samples 8 --set num_inference_steps=4 --overwrite"
    ),
    r"gradscope train ddpm --config train/ddpm32.yaml": How(
        f"{TRAINING} --set evaluation.samples=4 --set evaluation.num_inference_steps=2"
    ),
    r"gradscope train classifier --config train/robust32.yaml": How(TRAINING + "_classifier"),
    r"gradscope train temperature --card zoo:sportballs32/non_robust .*": How(),
    r"python runs/pictures.py .*": How(),
    r"python runs/population.py (table|predict)": How(),
    r"python runs/population.py (train|record|collect|predict --rule .*)": How(
        elsewhere="it takes hours; test_population.py runs its parts"
    ),
    r"sh runs/paper64.sh": How(elsewhere="it needs a GPU; test_paper64.py rehearses its parts"),
    r"python runs/calibration.py .*": How(elsewhere="it draws for minutes; tests/analysis looks at a few such draws"),
    r"python tests/dashboards/screenshots.py .*": How(),
    r"python runs/examples/execute.py": How(elsewhere="test_notebooks.py executes them, and it would rewrite them"),
    r"python tests/benchmarks/gpu.py .*": How(elsewhere="it needs a GPU; test_benchmarks.py rehearses it"),
    r"python tests/benchmarks/dashboard.py.*": How(elsewhere="it needs idle cores, and minutes"),
    r"python tests/benchmarks/run.py .*": How(elsewhere="it takes minutes; CI runs all parts, small"),
    r"python tests/benchmarks/page.py .*": How(
        elsewhere="it needs the results of `make bench`; see test_benchmarks.py"
    ),
    r"export AWS_.*": How(elsewhere="its variables are set for the commands below it"),
    r"pip install .*|apt-get install .*": How(elsewhere="it changes the machine"),
    r"ssh .*|python -c pass|dask scheduler|dask worker .*": How(elsewhere="it is not gradscope's"),
}  # the first that matches


def commands() -> list[str]:
    """Lines behind a prompt, and code within the text that is a whole command."""
    lines = [
        line[2:]
        for page in PAGES
        for block in blocks(page, "console")
        for line in re.sub(r"\\\n *", "", block).splitlines()
        if line.startswith("$ ")
    ]
    inline = [
        text
        for page in PAGES
        for text in re.findall(r"`((?:gradscope|make|python|pip|apt-get|dask|ssh) [^`\n]+)`", prose(page))
    ]
    whole = [text for text in inline if not re.search(r"\b[A-Z]{4,}\b", text) and _is_whole(text)]
    return list(dict.fromkeys([*(shlex.join(shlex.split(line, comments=True)) for line in lines), *whole]))


def _is_whole(text: str) -> bool:
    """Not the name of a command alone."""
    return not text.startswith("gradscope") or len(text.split()) > 2 or text.split()[1].startswith("-")


def how(command: str) -> How | None:
    return next((found for pattern, found in HOW.items() if re.fullmatch(pattern, command)), None)


def test_it_is_known_how_each_command_is_run():
    assert len(commands()) > 15
    assert [command for command in commands() if how(command) is None] == []


def complaint(words: list[str]) -> str:
    """What typer's own parser says of a command's words; empty if nothing."""
    group = typer.main.get_command(app)
    outer, inner = group, group
    while isinstance(inner, typer.core.TyperGroup) and words and words[0] in inner.commands:
        outer, inner, words = inner, inner.commands[words[0]], words[1:]
    try:
        inner.make_context("gradscope", words, parent=outer.context_class(outer))
    except RuntimeError:  # --help ends so
        return ""
    except Exception as error:
        return str(error)
    return ""


def test_no_command_lacks_an_argument():
    """Without a run: what a slow test would find after minutes."""
    for command in commands():
        if command.startswith("gradscope "):
            assert not re.search("issing|o such", complaint(shlex.split(command)[1:])), command


def test_what_ci_runs_is_in_ci():
    targets = {
        word for line in CI.splitlines() if line.startswith("make ") for word in line.partition("  #")[0].split()
    }
    for command in commands():
        found = how(command)
        if found is not None and found.elsewhere == "in .ci/run":
            assert command.split()[1] in targets, command


def test_the_demo_records_what_is_run_here():
    recipe = subprocess.run(["make", "-n", "demo"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "gradscope record --config both.yaml --overwrite\n" in recipe
    for command in re.findall(r"bin/(gradscope .*?)  ", recipe):
        assert how(command) is not None, command


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """What a reader has: the scripts and pictures of the repository, and stores where the pages' commands put them."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "tests").symlink_to(ROOT / "tests")
    shutil.copytree(ROOT / "runs", folder / "runs", ignore=shutil.ignore_patterns("*.zarr"))
    return folder


@pytest.fixture(scope="module")
def environment(checkout) -> Iterator[dict[str, str]]:
    """Of the commands: this interpreter's, with an object store on loopback."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    found = os.environ | {
        "PATH": f"{checkout / 'bin'}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "AWS_ACCESS_KEY_ID": "someone",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_REGION": "us-east-1",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.get_host_and_port()[1]}",
    }
    with pytest.MonkeyPatch.context() as patch:
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL"):
            patch.setenv(key, found[key])
        import boto3

        boto3.client("s3").create_bucket(Bucket="bucket")
        yield found
    server.stop()


def words_of(command: str) -> list[str]:
    found = how(command)
    assert found is not None
    words = [*shlex.split(command), *shlex.split(found.further)]
    python = [sys.executable] if words[0] == "python" else [sys.executable, "-m", "gradscope"]
    return [*python, *words[1:]]


def run(words: list[str], folder: Path, environment: dict[str, str]) -> str:
    done = preloaded.run(words[1:], folder, environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if (found := how(c)) and not found.elsewhere])
def test_the_command_runs(command, checkout, environment):
    if command.startswith("python tests/dashboards/screenshots.py") and not shutil.which("chromium"):
        assert "CI" not in os.environ
        pytest.skip("needs Chromium")
    for name in re.findall(r"(?<!--store )runs/(\w+)\.zarr", command):  # --store names what the command makes
        if not (checkout / "runs" / f"{name}.zarr").exists():
            run(words_of(f"gradscope record --config {name}.yaml"), checkout, environment)
    if "s3://bucket/both.zarr" in command and " record " not in command:
        _recorded_there(checkout, environment)
    special: Callable[[str, Path, dict[str, str]], None] = _run
    for pattern, other in {" dashboard ": _served, " --scheduler ": _on_a_cluster}.items():
        special = other if pattern in command else special
    special(command, checkout, environment)


def _run(command: str, folder: Path, environment: dict[str, str]) -> None:
    printed = run(words_of(command), folder, environment)
    if "--html" in command:
        assert (folder / shlex.split(command)[-1]).read_text().startswith("<!doctype html>")
    if " record --config " in command:
        assert "What came out" in printed


def _recorded_there(folder: Path, environment: dict[str, str]) -> None:
    command = "gradscope record --config both.yaml --store s3://bucket/both.zarr"
    if preloaded.run(["-m", "gradscope", "info", "s3://bucket/both.zarr"], folder, environment).returncode:
        run(words_of(command), folder, environment)


def _served(command: str, folder: Path, environment: dict[str, str]) -> None:
    with subprocess.Popen(words_of(command), cwd=folder, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            url = re.search(r"http://\S+", line)
            assert url, line
            with urlopen(url[0], timeout=60) as page:
                assert b"gradscope" in page.read()
        finally:
            process.terminate()


def _on_a_cluster(command: str, folder: Path, environment: dict[str, str]) -> None:
    """The scheduler and a worker as the page starts them, on a port of this machine."""
    file = folder / "scheduler.json"
    how_to_begin = (
        f"scheduler --host 127.0.0.1 --port 0 --no-dashboard --scheduler-file {file}",
        f"worker --scheduler-file {file} --nthreads 1 --no-dashboard",
    )
    start = [[sys.executable, "-m", "dask", *words.split()] for words in how_to_begin]
    processes = [subprocess.Popen(words, cwd=folder, env=environment, stderr=subprocess.DEVNULL) for words in start]
    try:
        address, end = "", time.monotonic() + 120
        while not address:
            assert time.monotonic() < end
            time.sleep(0.2)
            if file.exists() and (found := re.search(r'"address": "([^"]+)"', file.read_text())):
                address = found[1]
        words = [address if word.startswith("tcp://") else word for word in words_of(command)]
        while True:
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            if "has no workers" not in done.stderr or time.monotonic() > end:
                break
        assert done.returncode == 0, done.stderr
        assert "What came out" in done.stdout
    finally:
        for process in processes:
            process.terminate()
            process.wait(60)
