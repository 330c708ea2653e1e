"""Ask `gradscope.check` about every planted fault, and about the correct loops."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gradscope.checking.check import check
from gradscope.checking.checked import Checked
from gradscope.checking.history import FAULTS, LOOPS, Fault, Loop

PLACES = (5, 3, 7, 9)
"""Steps at which the loops are checked, one after the other over the seeds."""
CORRECT: tuple[Mapping[str, Any], ...] = ({}, {"stabilized": True}, {"faint": True})
"""Settings in which the correct loops are checked: those in which faults are."""


@dataclass(frozen=True)
class Answer:
    """What was answered about one loop.

    Parameters
    ----------
    loop, fault, seed
        What was asked; no fault for a correct loop.
    checked
        The answer.
    """

    loop: str
    fault: Fault | None
    seed: int
    checked: Checked

    @property
    def expected(self) -> str:
        """The verdict that is true."""
        return "right" if self.fault is None else self.fault.verdict

    @property
    def correct(self) -> bool:
        """Whether the fault is named, or the correct loop called right."""
        return self.checked.verdict == self.expected


def ask(loop: Loop, place: int) -> Checked:
    """The answer about a loop's gradient at one of its steps."""
    x, t = loop.at(place)
    shifted = loop.fault is not None and loop.fault.in_the_shift
    return check(
        loop.pushed if shifted else loop.cond_fn,
        loop.energy,
        x,
        t,
        denoiser=loop.denoiser,
        scheduler=loop.scheduler,
        guide=loop.guide,
        labels=loop.labels,
        previous=loop.before,
        normalize="l2" if loop.stabilized else "none",
        stabilizer=loop.stabilizer if loop.stabilized else None,
        state=loop.state,
    )


def answers(seeds: int) -> Iterator[Answer]:
    """Answers about the correct loops, then about each fault in each of its loops, over seeds 0, 1, ..."""
    asked: list[tuple[str, Fault | None, Mapping[str, Any]]] = [
        (name, None, settings) for name in LOOPS for settings in CORRECT
    ]
    asked += [(name, fault, fault.settings) for fault in FAULTS.values() for name in fault.loops]
    for name, fault, settings in asked:
        for seed in range(seeds):
            loop = LOOPS[name](None if fault is None else fault.name, seed=seed, **settings)
            yield Answer(name, fault, seed, ask(loop, PLACES[seed % len(PLACES)]))


def count(seeds: int) -> int:
    """How many answers `answers` gives."""
    return seeds * (len(LOOPS) * len(CORRECT) + sum(len(fault.loops) for fault in FAULTS.values()))
