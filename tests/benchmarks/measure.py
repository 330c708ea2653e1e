"""Pieces of work measured in turns, so that a disturbance affects all of them."""

import multiprocessing
import resource
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil

T = TypeVar("T")
Work = Callable[[], Any]
"""Does something once, and returns the seconds that it took, or what else it measured."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    device: str = "cpu"
    rounds: int = 6
    quick: bool = False
    """Small sizes, to see that everything runs; their numbers must not be cited."""
    gigabytes: float = 1.0
    """Size of the large store that is analysed."""

    def size(self, full: T, quick: T) -> T:
        """One of two sizes."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Case:
    """Work in a process of its own, because settings of threads and denormals stay with a process."""

    make: str
    """``module:function`` that returns the `Work`."""
    options: Mapping[str, Any]
    """Arguments of that function."""


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    what: str
    goal: str
    """The goal in words, ``<= 1.05``; empty if there is none."""
    met: bool | None
    median: float | None
    """None if it could not be measured; `detail` says why."""
    low: float | None
    """Lower quartile."""
    high: float | None
    """Upper quartile."""
    n: int
    unit: str
    detail: str


def judged(what: str, values: Sequence[float], goal: str = "", unit: str = "ratio", detail: str = "") -> Result:
    """Compare the median of several rounds with a goal: ``<= 1.05``, ``>= 2``, or nothing."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    met = None
    if goal:
        side, bound = goal.split()
        met = median <= float(bound) if side == "<=" else median >= float(bound)
    return Result(what, goal, met, median, low, high, len(values), unit, detail)


def missing(what: str, why: str) -> Result:
    """The row of something that could not be measured."""
    return Result(what, "", None, None, None, None, 0, "", why)


def ratios(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def interleaved(cases: Mapping[str, Case], rounds: int, warm: bool = True) -> dict[str, list[float]]:
    """Mean of each case in each round: every case in turn, then every case in reverse. A turn of each warms up."""
    with ExitStack() as stack:
        workers = {name: stack.enter_context(Worker(case)) for name, case in cases.items()}
        if warm:
            for worker in workers.values():
                worker.run()
        found: dict[str, list[float]] = {name: [] for name in cases}
        for _ in range(rounds):
            sums = dict.fromkeys(cases, 0.0)
            for name in (*cases, *reversed(cases)):
                sums[name] += workers[name].run()
            for name, both in sums.items():
                found[name].append(both / 2)
    return found


def alone(case: Case, rounds: int = 1, warm: bool = False) -> list[Any]:
    """Results of one case, round by round, in a new process."""
    with Worker(case) as worker:
        if warm:
            worker.run()
        return [worker.run() for _ in range(rounds)]


class Worker:
    """A process that does its work on request."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._scratch = tempfile.TemporaryDirectory()
        self.grown = 0.0
        """Bytes by which the peak of resident memory exceeded the memory before the latest run."""
        # not a daemon: some work starts processes of its own
        self._process = context.Process(target=_serve, args=(theirs, case, self._scratch.name))
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def run(self) -> Any:
        self._ours.send(True)
        found, self.grown = self._ours.recv()  # EOFError if the process ended; its traceback is on the screen
        return found

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self._ours.close()
        self._process.join(20)
        self._process.kill()
        self._process.join()
        self._scratch.cleanup()


def _serve(pipe: Any, case: Case, scratch: str) -> None:
    tempfile.tempdir = scratch
    module, _, name = case.make.partition(":")
    work: Work = getattr(import_module(module), name)(**case.options)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        before = psutil.Process().memory_info().rss
        found = work()
        pipe.send((found, 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
