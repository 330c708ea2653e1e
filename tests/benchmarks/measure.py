"""Ratios of two pieces of work, measured in turns, so that a disturbance affects both."""

import multiprocessing
import statistics
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib import import_module
from types import TracebackType
from typing import Any, Literal, Self

Side = Literal["<=", ">="]
Work = Callable[[], float]
"""Does something once, and returns the seconds (or bytes) that it took."""


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
    """The goal in words: ``<= 1.05``."""
    met: bool
    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""
    n: int
    unit: str
    detail: str

    def asdict(self) -> dict[str, Any]:
        return asdict(self)


def judged(what: str, values: list[float], side: Side, bound: float, unit: str = "ratio", detail: str = "") -> Result:
    """Compare the median of several rounds with a goal."""
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    met = median <= bound if side == "<=" else median >= bound
    return Result(what, f"{side} {bound:g}", met, median, low, high, len(values), unit, detail)


def interleaved(a: Case, b: Case, rounds: int) -> tuple[list[float], list[float]]:
    """Results of both in each round: the sums over a, b, b, a. A first turn of each is a warm-up and does not count."""
    with ExitStack() as stack:
        first, second = (stack.enter_context(_Worker(case)) for case in (a, b))
        first.run(), second.run()
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            before, others, after = first.run(), second.run() + second.run(), first.run()
            found[0].append(before + after)
            found[1].append(others)
    return found


def ratios(a: list[float], b: list[float]) -> list[float]:
    return [x / y for x, y in zip(a, b, strict=True)]


def alone(case: Case, rounds: int = 1, warm: bool = True) -> list[float]:
    """Results of one case, round by round, in a new process."""
    with _Worker(case) as worker:
        if warm:
            worker.run()
        return [worker.run() for _ in range(rounds)]


class _Worker:
    """A process that does its work on request."""

    def __init__(self, case: Case) -> None:
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._scratch = tempfile.TemporaryDirectory()
        self._process = context.Process(target=_serve, args=(theirs, case, self._scratch.name), daemon=True)
        self._process.start()
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def run(self) -> float:
        self._ours.send(True)
        found = self._ours.recv()  # EOFError if the process ended; its traceback is on the screen
        return float(found)

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
        pipe.send(work())
