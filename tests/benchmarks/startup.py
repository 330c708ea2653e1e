"""The start of processes (Python itself, the help, the dashboard), and the speed of drawing SportBalls."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator

from measure import Case, Extent, Result, Work, alone, interleaved, judged

ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
"""Bytecode may be written: an installed package has it, and a checkout has it after its first start."""


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
    rates = [images / seconds for seconds in alone(Case("startup:sportballs", {"images": images}), rounds, warm=True)]
    yield judged("SportBalls of 32 px, on one core", rates, ">= 2000", "images/s")


def bare() -> Work:
    """Python that does nothing."""
    return lambda: _ended("-c", "pass")


def help_page() -> Work:
    """``gradscope --help``."""
    return lambda: _ended("-c", "from gradscope.cli import main; main()", "--help")


def dashboard(store: str) -> Work:
    """``gradscope dashboard STORE`` on any free port, until its first page arrives."""

    def work() -> float:
        start = time.perf_counter()
        command = [sys.executable, "-c", "from gradscope.cli import main; main()", "dashboard", store, "--port", "0"]
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
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
