"""Enumerate the states that a workload may leave at each of its points, and judge each distinct one."""

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from crash.disk import Disk, State, digest, lay_out, state_of
from crash.judge import HIDDEN, Case, Fault, Whole
from crash.tracing import Call, Trace, traced
from crash.workloads import STORE, WORKLOADS

from gradscope.store import writer
from gradscope.store.replacement import JOURNAL

DRAWS = 4
"""Random states of each point at which a power failure has more than `crash.disk.MOST` outcomes."""
_EVERY = 40
"""Kills so far apart are judged in any case, also where only the content of hidden folders differs."""


@dataclass
class Count:
    """Numbers of one kind of interruption of a workload, and the promises that it broke."""

    points: int = 0
    """Points of the trace, or calls that failed."""
    states: int = 0
    distinct: int = 0
    judged: int = 0
    """Distinct states that were judged here: those of an earlier kind count there."""
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


class Run:
    """A workload, traced once.

    Parameters
    ----------
    name
        One of `WORKLOADS`.
    folder
        An empty folder for stores.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.workload, self._folder = name, WORKLOADS[name], folder
        home = self.home()
        self.workload.before(home)
        self.start: State = state_of(home)
        before = Whole(home / STORE) if (home / STORE).exists() else None
        trace = self.traced(home)
        self.events = trace.events
        self.calls = [call for call in trace.calls if not (self.workload.alike and call.path.startswith(HIDDEN))]
        self._refuse_partial_files_that_are_read()
        self.end: State = state_of(home)
        self.case = Case(self.workload, before, Whole(home / STORE))
        self._judged: set[tuple[int, bool]] = set()
        self._number = 0
        shutil.rmtree(home)

    def home(self) -> Path:
        """The folder in which the workload runs, empty: always the same path, which stores contain."""
        home = self._folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        return home

    def begun(self) -> Path:
        """The folder, with what is there before the workload."""
        return self._laid_out(self.start)

    def _laid_out(self, state: State) -> Path:
        home = self.home()
        home.rmdir()
        lay_out(state, home)
        return home

    def traced(self, home: Path, fault: Callable[[Call], None] = lambda call: None) -> Trace:
        """Run the workload and trace it."""
        seconds = self.workload.flush_seconds
        usual = writer.FLUSH_SECONDS if seconds is None else seconds
        with patch.object(writer, "FLUSH_SECONDS", usual), traced(home, fault) as trace:
            self.workload.act(home)
        return trace

    def _refuse_partial_files_that_are_read(self) -> None:
        """Check what `digest` relies on."""
        read = {event.path for event in self.events if event.kind == "read" and event.path.startswith(f"{STORE}/")}
        assert not [path for path in read if path.endswith(".partial") and path != f"{STORE}/{JOURNAL}"]

    def replayed(self) -> State:
        """The state at the end by the trace."""
        disk = Disk(self.start)
        for event in self.events:
            disk.apply(event)
        return disk.now()

    def judge(
        self, states: Iterable[State], strict: bool, most: int | None = None, count: Count | None = None
    ) -> Count:
        """Judge distinct states; of more than `most`, a random choice. A `count` that is given goes on."""
        begun, new = time.process_time(), dict[int, State]()
        count = Count(len(self.events)) if count is None else count
        seen = set[int]()
        for number, state in enumerate(states):
            count.states += 1
            key = digest(state, "\0" if strict and number % _EVERY == 0 else HIDDEN)
            seen.add(key)
            if (key, True) not in self._judged and (key, strict) not in self._judged:
                new.setdefault(key, state)
        count.distinct = len(seen)
        keys = [*new] if most is None else random.Random(0).sample([*new], min(most, len(new)))
        for key in keys:
            self._judged.add((key, strict))
            count.judged += 1
            try:
                count.outcomes[self.outcome(new[key], strict)] += 1
            except Fault as fault:
                count.faults.append(f"{self.name}: {fault}")
        count.seconds = time.process_time() - begun
        return count

    def outcome(self, state: State, strict: bool = True) -> str:
        """Judge one state."""
        return self.case.judge(self._laid_out(state), strict)

    def kills(self) -> Iterator[State]:
        """What a kill leaves before the first event, and after each."""
        disk = Disk(self.start)
        yield disk.now()
        for event in self.events:
            disk.apply(event)
            yield disk.now()

    def torn(self) -> Iterator[State]:
        """What a kill leaves within each write: its first byte, each quarter, all but the last byte."""
        for index, event in enumerate(self.events):
            if event.kind != "write" or len(event.data) < 2:
                continue
            for most in sorted({1, *(len(event.data) * i // 4 for i in (1, 2, 3)), len(event.data) - 1} - {0}):
                yield self._before(index, most)

    def _before(self, index: int, most: int) -> State:
        disk = Disk(self.start)
        for event in self.events[:index]:
            disk.apply(event)
        disk.apply(self.events[index], most)
        return disk.now()

    def power_failures(self, draws: int = DRAWS) -> Iterator[State]:
        """What a power failure leaves before the first event, and after each."""
        disk, rng = Disk(self.start), random.Random(self.name)
        for event in self.events:
            disk.apply(event)
            yield from disk.power_failures(HIDDEN, draws, rng)
