"""The cursor and the view: one `State`, one short URL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self, TypeVar
from urllib.parse import urlencode

from dashboards.data.library import Library, Recorded
from probes.catalogue import CATALOGUE

PAGES = ("overview", "trajectory", "compare", "distributions", "samples", "run")
CURSOR = ("store", "cell", "t", "sample")
"""Parameters that every page's URL carries."""
FIELDS: Mapping[str, tuple[str, ...]] = {
    "overview": ("variables",),
    "trajectory": ("cells", "variables", "limits"),
    "compare": ("other", "variables"),
    "distributions": ("cells", "variables"),
    "samples": ("only",),
    "run": (),
}
"""Further parameters of a page's URL."""
SHOWN = 8
"""So many cells are shown together at first,"""
SHOWN_MOST = 16
"""and at most so many."""
VARIABLES_MOST = 3
"""So many diagnostics are shown together at most."""
MOST: Mapping[str, Mapping[str, int]] = {
    "cells": {"distributions": 4},
    "variables": {"overview": 1, "compare": 1, "distributions": 1},
}
"""Fewer, on some pages: of more, as links from other pages bring them, the first are shown."""
LIMITS = ("shared", "cell")
ONLY = ("all", "wrong", "fooled", "right", "nonfinite")
T = TypeVar("T")
_FIRST = {row.probe: row.name for row in reversed(list(CATALOGUE.values())) if row.headline}
"""By probe, the first of its headline diagnostics."""


@dataclass(frozen=True)
class State:
    """Where the cursor is, and what is shown around it."""

    page: str
    store: str
    """Key of the run in the `Library`."""
    cell: int
    """Number of the cell in `Recorded.cells`."""
    timestep: int
    """Diffusion time."""
    sample: int
    other: int
    """The cell that is compared with `cell`."""
    cells: tuple[int, ...]
    """Cells that are shown together, ascending."""
    variables: tuple[str, ...]
    """Diagnostics that are shown."""
    limits: str = "shared"
    """Colour limits of maps: shared by the cells, or each cell's own."""
    only: str = "all"
    """Which samples are shown."""

    def to(self, page: str, **changes: Any) -> Self:
        """The same on another page, with some fields changed."""
        return replace(self, page=page, **changes)

    def url(self) -> str:
        """Relative URL that restores this state: ``trajectory?store=5f0c1a2b&cell=3&t=499&sample=12``."""
        written = {
            "store": self.store,
            "cell": self.cell,
            "t": self.timestep,
            "sample": self.sample,
            "other": self.other,
            "cells": mask(self.cells),
            "variables": ",".join(self.variables),
            "limits": self.limits,
            "only": self.only,
        }
        return f"{self.page}?" + urlencode({k: written[k] for k in (*CURSOR, *FIELDS[self.page])}, safe=",")


def mask(cells: tuple[int, ...]) -> str:
    """Cells' numbers as a hexadecimal number in which bit i stands for cell i."""
    return f"{sum(1 << number for number in cells):x}"


def unmask(text: str) -> tuple[int, ...]:
    """Inverse of `mask`; ValueError where the text is no such number."""
    if not re.fullmatch("[0-9a-f]{1,256}", text):
        raise ValueError(f"no hexadecimal number: {text[:40]}")
    bits = int(text, 16)
    return tuple(i for i in range(bits.bit_length()) if bits >> i & 1)


def default(run: Recorded, page: str = "overview") -> State:
    """Where a visitor starts: the first guided cell, in the middle of the trajectory of sample 0."""
    guided = [i for i, cell in enumerate(run.cells) if cell["guidance_scale"] != 0] or list(range(len(run.cells)))
    timestep = run.ds["timestep"].values
    known = scalars(run)
    usual = [name for name in reversed(list(_FIRST.values())) if name in known] or known
    return State(
        page=page,
        store=run.key,
        cell=guided[0],
        timestep=int(timestep[len(timestep) // 2]),
        sample=0,
        other=guided[min(1, len(guided) - 1)],
        cells=_spread(guided, MOST["cells"].get(page, SHOWN)),
        variables=tuple(usual[: MOST["variables"].get(page, VARIABLES_MOST)]),
    )


def _spread(numbers: list[int], most: int) -> tuple[int, ...]:
    """At most so many of them, evenly."""
    count = min(most, len(numbers))
    return tuple(numbers[i * len(numbers) // count] for i in range(count))


def scalars(run: Recorded) -> list[str]:
    """Names of the diagnostics along t: one number a sample and timestep."""
    over = {"classifier", "classifier_input", "stabilizer", "guidance_scale", "sample", "timestep"}
    return [str(name) for name, v in run.ds.data_vars.items() if set(v.dims) == over and v.dtype.kind == "f"]


def parse(path: str, query: Mapping[str, str], library: Library) -> tuple[State | None, list[str]]:
    """The state that a URL means; what it cannot mean here is clamped, and a notice says so.

    Returns
    -------
    State, list of str
        None where the run that it names cannot be opened.
    """
    notices: list[str] = []
    page = path.strip("/") or PAGES[0]
    if page not in PAGES:
        notices.append(f"there is no page {page[:40]!r}: this is the overview; pages are {', '.join(PAGES)}")
        page = PAGES[0]
    key = query.get("store")
    run = library.run(key)
    if key is not None and key != run.key:
        notices.append(f"no open store is {key[:40]!r}: this is {run.path.name}")
    if not isinstance(run, Recorded):
        return None, notices
    return _Reader(run, query, notices).state(page), notices


class _Reader:
    """Reads one parameter after the other, and notes what had to be clamped."""

    def __init__(self, run: Recorded, query: Mapping[str, str], notices: list[str]) -> None:
        self.run, self.query, self.notices = run, query, notices

    def state(self, page: str) -> State:
        usual, run = default(self.run, page), self.run
        last = len(run.cells) - 1
        known = scalars(run)
        return replace(
            usual,
            cell=self._number("cell", usual.cell, last),
            other=self._number("other", usual.other, last),
            sample=self._number("sample", usual.sample, run.ds.sizes["sample"] - 1),
            timestep=self._timestep(usual.timestep),
            cells=self._cells(usual.cells)[: MOST["cells"].get(page, SHOWN_MOST)],
            variables=self._several("variables", usual.variables, known)[: MOST["variables"].get(page, VARIABLES_MOST)],
            limits=self._choice("limits", LIMITS),
            only=self._choice("only", ONLY),
        )

    def _number(self, key: str, usual: int, last: int) -> int:
        if (text := self.query.get(key)) is None:
            return usual
        number = _integer(text)
        if number is None:
            return self._clamped(key, text, f"a number from 0 to {last}", usual)
        if not 0 <= number <= last:
            return self._clamped(key, text, f"a number from 0 to {last}", min(max(number, 0), last))
        return number

    def _timestep(self, usual: int) -> int:
        if (text := self.query.get("t")) is None:
            return usual
        timesteps = self.run.ds["timestep"].values
        number = _integer(text)
        if number is None:
            return self._clamped("t", text, "a timestep", usual)
        nearest = min(timesteps.tolist(), key=lambda t: abs(t - number))
        return nearest if nearest == number else self._clamped("t", text, "a timestep of this run", nearest)

    def _cells(self, usual: tuple[int, ...]) -> tuple[int, ...]:
        if (text := self.query.get("cells")) is None:
            return usual
        try:
            chosen = unmask(text)
        except ValueError:
            return self._clamped("cells", text, "a hexadecimal number", usual)
        there = tuple(number for number in chosen if number < len(self.run.cells))[:SHOWN_MOST]
        if there != chosen:
            about = f"up to {SHOWN_MOST} of the cells 0 to {len(self.run.cells) - 1}"
            return self._clamped("cells", text, about, there or usual)
        return there or usual

    def _several(self, key: str, usual: tuple[str, ...], known: list[str]) -> tuple[str, ...]:
        if (text := self.query.get(key)) is None:
            return usual
        names = tuple(dict.fromkeys(filter(None, text.split(","))))
        there = tuple(name for name in names if name in known)
        return (
            (there or usual)
            if there == names
            else self._clamped(key, text, f"some of {', '.join(known)}", there or usual)
        )

    def _choice(self, key: str, choices: tuple[str, ...]) -> str:
        text = self.query.get(key, choices[0])
        return text if text in choices else self._clamped(key, text, f"one of {', '.join(choices)}", choices[0])

    def _clamped(self, key: str, got: str, possible: str, value: T) -> T:
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value
        self.notices.append(f"{key}={got[:40]}: not {possible}; shown: {shown}")
        return value


def _integer(text: str) -> int | None:
    try:
        return int(text[:20])
    except ValueError:
        return None
