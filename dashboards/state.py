"""The state of a view: the cursor and what is shown around it, and the short URL that restores it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeVar, get_args
from urllib.parse import urlencode

from dashboards.data.counterpart import moved
from dashboards.data.finding_key import KEY
from dashboards.data.library import Library
from dashboards.data.masks import mask, unmask
from dashboards.data.open_run import OpenRun
from probes.catalogue import CATALOGUE

PAGES = ("overview", "trajectory", "compare", "distributions", "guidance", "samples", "loop", "run")
CURSOR = ("store", "cell", "t", "sample")
"""Parameters of every page's URL."""
FIELDS: Mapping[str, tuple[str, ...]] = {
    "overview": ("variables", "label"),
    "trajectory": ("cells", "variables", "limits", "label", "scale", "channel", "zoom", "finding"),
    "compare": ("other", "other_store", "variables", "label"),
    "distributions": ("cells", "variables", "label"),
    "guidance": ("cells", "label"),
    "samples": ("only",),
    "loop": (),
    "run": (),
}
"""Further parameters, by page."""
OMITTED: Mapping[str, str] = {"scale": "linear", "channel": "mean", "zoom": "", "finding": "", "other_store": ""}
"""Parameters with the values at which a URL leaves them out."""
CELLS_DEFAULT = 8
"""Cells that are shown together at first."""
CELLS_MAX = 16
VARIABLES_MAX = 3
PAGE_MAX: Mapping[str, Mapping[str, int]] = {
    "cells": {"distributions": 4},
    "variables": {"overview": 1, "compare": 1, "distributions": 1},
}
"""Lower maxima of some pages. A link from another page may have more; the first ones are shown."""
LIMITS = ("cell", "shared", "fixed")
SCALES = ("linear", "log")
SampleFilter = Literal["all", "wrong", "fooled", "right", "nonfinite"]
SAMPLE_FILTERS: tuple[SampleFilter, ...] = get_args(SampleFilter)
T = TypeVar("T")
_HEADLINES = [row for row in CATALOGUE.values() if row.headline]
DEFAULT_VARIABLES = tuple({row.probe: row.name for row in reversed(_HEADLINES)}.values())[::-1]
"""The first headline diagnostic of each probe."""


@dataclass(frozen=True)
class State:
    """The position of the cursor, and what is shown around it."""

    page: str
    store: str
    """Key of the run in the `Library`."""
    cell: int
    """Number of the cell in `OpenRun.cells`."""
    timestep: int
    """Diffusion time."""
    sample: int
    other: int
    """The cell that is compared with `cell`, by its number in its own store."""
    cells: tuple[int, ...]
    """Cells that are shown together, ascending."""
    variables: tuple[str, ...]
    """Diagnostics that are shown."""
    limits: str = "cell"
    """Limits of maps: of each map (``cell``), shared by the cells, or fixed over t."""
    scale: str = "linear"
    """Scale of the maps' colours: linear, or symmetric logarithmic (``log``)."""
    channel: str = "mean"
    """The channel that maps show: their mean, or a number."""
    zoom: str = ""
    """The tensor of the focused cell that is enlarged; none where empty."""
    finding: str = ""
    """Key of the finding that the page explains, see `dashboards.data.finding_key`; none where empty."""
    other_store: str = ""
    """Key of the store of `other`; empty where that is `store`."""
    label: int | None = None
    """The target class whose samples are shown; None for all."""
    only: SampleFilter = "all"
    """Samples that are shown."""

    def to(self, page: str, **changes: Any) -> Self:
        """The same state on another page, with some fields changed."""
        return replace(self, page=page, **changes)

    def url(self) -> str:
        """Relative URL that restores this state: ``trajectory?store=5f0c1a2b&cell=3&t=499&sample=12``."""
        parameters = {
            "store": self.store,
            "cell": self.cell,
            "t": self.timestep,
            "sample": self.sample,
            "other": self.other,
            "cells": mask(self.cells),
            "variables": ",".join(self.variables),
            "limits": self.limits,
            "scale": self.scale,
            "channel": self.channel,
            "zoom": self.zoom,
            "finding": self.finding,
            "other_store": self.other_store,
            "label": "all" if self.label is None else self.label,
            "only": self.only,
        }
        shown = {key: parameters[key] for key in (*CURSOR, *FIELDS[self.page])}
        return f"{self.page}?" + urlencode({k: v for k, v in shown.items() if OMITTED.get(k) != v}, safe=",")


def default(run: OpenRun, page: str = "overview") -> State:
    """The first state: the first guided cell, in the middle of the trajectory of sample 0."""
    guided = [i for i, cell in enumerate(run.cells) if cell["guidance_scale"] != 0] or list(range(len(run.cells)))
    timestep = run.ds["timestep"].values
    known = diagnostics(run)
    variables = [name for name in DEFAULT_VARIABLES if name in known] or known
    return State(
        page=page,
        store=run.key,
        cell=guided[0],
        timestep=int(timestep[len(timestep) // 2]),
        sample=0,
        other=guided[min(1, len(guided) - 1)],
        cells=_spread(guided, PAGE_MAX["cells"].get(page, CELLS_DEFAULT)),
        variables=tuple(variables[: PAGE_MAX["variables"].get(page, VARIABLES_MAX)]),
    )


def _spread(numbers: list[int], most: int) -> tuple[int, ...]:
    """At most `most` of the numbers, evenly spread."""
    count = min(most, len(numbers))
    return tuple(numbers[i * len(numbers) // count] for i in range(count))


def diagnostics(run: OpenRun) -> list[str]:
    """Names of the diagnostics along t: one real number for each cell, sample and timestep."""
    dims = {"classifier", "classifier_input", "stabilizer", "guidance_scale", "sample", "timestep"}
    return [str(name) for name, v in run.ds.variables.items() if set(v.dims) == dims and v.dtype.kind == "f"]


def channels(run: OpenRun) -> tuple[str, ...]:
    """What `State.channel` can be: the mean, and the number of each channel of samples that are images or videos."""
    has_channels = run.tensors and run.kind.name in ("image", "video")
    count = run.sample_shape[run.kind.dims.index("channel")] if has_channels else 0
    return ("mean", *(map(str, range(count)) if count > 1 else ()))


def parse(path: str, query: Mapping[str, str], library: Library) -> tuple[State | None, list[str]]:
    """Read the state from a URL. Impossible values are replaced by possible ones, each with a notice.

    After a change of store, ``was`` names the store to which the numbers of cells belong, and ``other_was`` that of
    ``other``: the state has the cells of the same names.

    Returns
    -------
    State, list of str
        The state, None where the named run cannot be opened; and the notices.
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
    if not isinstance(run, OpenRun):
        return None, notices
    return _QueryReader(run, query, notices, library).state(page), notices


class _QueryReader:
    """Reads one parameter after the other, and adds a notice for each value that it replaces."""

    def __init__(self, run: OpenRun, query: Mapping[str, str], notices: list[str], library: Library) -> None:
        self.run, self.query, self.notices, self.library = run, query, notices, library

    def state(self, page: str) -> State:
        start, run = default(self.run, page), self.run
        other_store = self._other_store()
        other = self.library.runs[other_store] if other_store else run
        assert isinstance(other, OpenRun)
        self.query = moved(self.query, run, other, self.library, self.notices)
        last = len(run.cells) - 1
        return replace(
            start,
            cell=self._number("cell", start.cell, last),
            other=self._number("other", default(other, page).other, len(other.cells) - 1),
            other_store=other_store,
            label=self._label(),
            sample=self._number("sample", start.sample, run.ds.sizes["sample"] - 1),
            timestep=self._timestep(start.timestep),
            cells=self._cells(start.cells)[: PAGE_MAX["cells"].get(page, CELLS_MAX)],
            variables=self._variables(start.variables)[: PAGE_MAX["variables"].get(page, VARIABLES_MAX)],
            limits=self._choice("limits", LIMITS),
            scale=self._choice("scale", SCALES),
            channel=self._choice("channel", channels(run)),
            zoom=self._choice("zoom", ("", *run.tensors)),
            finding=self._finding(),
            only=self._choice("only", SAMPLE_FILTERS),
        )

    def _other_store(self) -> str:
        key = self.query.get("other_store", "")
        if not key or key == self.run.key:
            return ""
        if isinstance(self.library.runs.get(key), OpenRun):
            return key
        known = [other for other, run in self.library.runs.items() if isinstance(run, OpenRun)]
        return self._replaced("other_store", key, f"one of {', '.join(known)}", "")

    def _label(self) -> int | None:
        text = self.query.get("label", "all")
        if text == "all":
            return None
        known = sorted(set(self.run.ds["label"].values.tolist()))
        if _integer(text) in known:
            return _integer(text)
        self._replaced("label", text, f"all or one of {', '.join(map(str, known))}", "all")
        return None

    def _number(self, key: str, start: int, last: int) -> int:
        if (text := self.query.get(key)) is None:
            return start
        number = _integer(text)
        if number is None:
            return self._replaced(key, text, f"a number from 0 to {last}", start)
        if not 0 <= number <= last:
            return self._replaced(key, text, f"a number from 0 to {last}", min(max(number, 0), last))
        return number

    def _timestep(self, start: int) -> int:
        if (text := self.query.get("t")) is None:
            return start
        timesteps = self.run.ds["timestep"].values
        number = _integer(text)
        if number is None:
            return self._replaced("t", text, "a timestep", start)
        nearest = min(timesteps.tolist(), key=lambda t: abs(t - number))
        return nearest if nearest == number else self._replaced("t", text, "a timestep of this run", nearest)

    def _cells(self, start: tuple[int, ...]) -> tuple[int, ...]:
        if (text := self.query.get("cells")) is None:
            return start
        try:
            wanted = unmask(text)
        except ValueError:
            return self._replaced("cells", text, "a hexadecimal number", start)
        found = tuple(number for number in wanted if number < len(self.run.cells))[:CELLS_MAX]
        if found != wanted:
            possible = f"up to {CELLS_MAX} of the cells 0 to {len(self.run.cells) - 1}"
            return self._replaced("cells", text, possible, found or start)
        return found or start

    def _variables(self, start: tuple[str, ...]) -> tuple[str, ...]:
        if (text := self.query.get("variables")) is None:
            return start
        known = diagnostics(self.run)
        wanted = tuple(dict.fromkeys(filter(None, text.split(","))))
        found = tuple(name for name in wanted if name in known)
        if found != wanted and "was" not in self.query:  # another store has other diagnostics
            return self._replaced("variables", text, f"some of {', '.join(known)}", found or start)
        return found or start

    def _choice(self, key: str, choices: tuple[T, ...]) -> T:
        text = self.query.get(key, choices[0])
        if text in choices:
            return choices[choices.index(text)]
        return self._replaced(key, str(text), f"one of {', '.join(filter(None, map(str, choices)))}", choices[0])

    def _finding(self) -> str:
        """The key of a finding. The page looks for it later: finding them takes a moment."""
        text = self.query.get("finding", "")
        if not text or re.fullmatch(KEY, text):
            return text
        return self._replaced("finding", text, "a cell and a signature, such as 3.unstable", "")

    def _replaced(self, key: str, got: str, possible: str, value: T) -> T:
        shown = ", ".join(map(str, value)) if isinstance(value, tuple) else value if value != "" else "none"
        self.notices.append(f"{key}={got[:40]}: not {possible}; shown: {shown}")
        return value


def _integer(text: str) -> int | None:
    try:
        return int(text[:20])
    except ValueError:
        return None
