"""The start of processes (Python itself, commands, the dashboard), and the speed of drawing SportBalls."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from measure import Case, Extent, Result, Work, alone, interleaved, judged, ratios

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Bytecode may be written: an installed package has it, and a checkout has it after its first start."""
COMMAND = "from gradscope.cli import main; main()"
READING = "import xarray, zarr, dask.array, scipy.stats"
"""What a report needs of others."""
MODELS = """
import torch, diffusers, timm, gradscope
gradscope.load_denoiser("zoo:sportballs32/ddpm")
for name in ("robust", "non_robust"):
    gradscope.load_classifier(f"zoo:sportballs32/{name}", (3, 32, 32))
"""
"""What the recording of both.yaml needs before its first step."""


def results(extent: Extent) -> Iterator[Result]:
    """Times that a user waits before anything happens."""
    rounds, images = extent.rounds, extent.size(2000, 256)
    found = interleaved({"help": Case("startup:help_page", {}), "bare": Case("startup:bare", {})}, rounds)
    extra = [1e3 * (slow - fast) for slow, fast in zip(found["help"], found["bare"], strict=True)]
    yield judged("gradscope --help, beyond python -c pass", extra, "<= 300", "ms")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/run.zarr"
        alone(Case("stores:make", {"path": path, "timesteps": extent.size(50, 5)}))
        seconds = alone(Case("startup:dashboard", {"store": path}), rounds, warm=True)
        yield judged("gradscope dashboard, to its first page", seconds, "<= 2", "s")
        reading = {
            "info": Case("startup:command", {"words": ["info", path]}),
            "report": Case("startup:command", {"words": ["report", path]}),
            "imports": Case("startup:code", {"text": READING}),
        }
        found = interleaved(reading, rounds)
        yield judged("gradscope info", found["info"], "<= 0.7", "s")
        yield judged("gradscope report", found["report"], "<= 1.5", "s")
        yield judged(f"gradscope report / {READING}", ratios(found["report"], found["imports"]))
    recording = {"record": Case("startup:record", {}), "models": Case("startup:code", {"text": MODELS})}
    found = interleaved(recording, rounds)
    yield judged("gradscope record both.yaml, until its store exists", found["record"], unit="s")
    of_others = ratios(found["record"], found["models"])
    yield judged("the same / importing torch, diffusers and timm, and loading its models", of_others, "<= 1.2")
    rates = [images / seconds for seconds in alone(Case("startup:sportballs", {"images": images}), rounds, warm=True)]
    yield judged("SportBalls of 32 px, on one core", rates, ">= 2000", "images/s")


def bare() -> Work:
    """Python that does nothing."""
    return code("pass")


def help_page() -> Work:
    """``gradscope --help``."""
    return command(["--help"])


def command(words: list[str]) -> Work:
    """A command of gradscope, to its end."""
    return lambda: _ended("-c", COMMAND, *words)


def code(text: str) -> Work:
    """Some lines of Python, to their end."""
    return lambda: _ended("-c", text)


def record() -> Work:
    """``gradscope record``, until its store exists: a step of each guide and input was taken before that."""

    def work() -> float:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "run.zarr"
            small = ("sampling.samples=2", "sampling.batch_size=2", "sampling.num_inference_steps=2")
            settings = [word for setting in small for word in ("--set", setting)]
            words = ["record", "--config", "both.yaml", "--store", str(store), *settings]
            start = time.perf_counter()
            quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            process = subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=ENVIRONMENT, **quiet)
            while not store.exists():
                assert process.poll() is None
                time.sleep(0.002)
            seconds = time.perf_counter() - start
            process.terminate()
            process.wait(20)
            return seconds

    return work


def dashboard(store: str) -> Work:
    """``gradscope dashboard STORE`` on any free port, until its first page arrives."""

    def work() -> float:
        start = time.perf_counter()
        words = [sys.executable, "-c", COMMAND, "dashboard", store, "--port", "0"]
        process = subprocess.Popen(words, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[2]
            with urllib.request.urlopen(url, timeout=60) as answer:  # raises HTTPError unless the status is 200 to 299
                answer.read()
            return time.perf_counter() - start
        finally:
            process.terminate()
            process.wait(20)

    return work


def sportballs(images: int = 2000) -> Work:
    """Images of 32 px, drawn by one thread in batches as for training."""
    os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    import numpy as np  # numpy reads these variables when it is imported

    from gradscope.data.sportballs import factors, render

    def work() -> float:
        start = time.perf_counter()
        for index in np.split(np.arange(images), range(128, images, 128)):
            render(factors(0, index), 32)
        return time.perf_counter() - start

    return work


def _ended(*arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=ENVIRONMENT, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start
