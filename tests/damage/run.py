"""`make crash`: damage each file of a tiny store in every way, and count what readers and `verify` find.

PYTHONPATH=tests python -m damage.run                         all faults, on all cores: some minutes
PYTHONPATH=tests python -m damage.run --sample 1000 --seed 3  some of them
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import dask
from damage import faults, tiny_store
from damage.faults import Fault
from damage.judge import BELIEVED, FOUND, HUNG, RIGHT, UNCLEAR, Judge, Verdict
from rich.console import Console
from rich.table import Table

from gradscope.store.dims import COORDINATES

BAD = 20
"""Faults that are printed, where any is not found."""
_OF = {
    "": "metadata of the root",
    "written": "marker",
    "gradient": "tensors",
    "image": "final samples",
    **dict.fromkeys(("own_prediction", "own_accuracy", "class"), "evaluation"),
    **dict.fromkeys(COORDINATES, "coordinates"),
}
Case = tuple[str, Fault]
"""A kind of store, and a fault of it."""
_judges: dict[str, Judge] = {}


def place(file: str) -> str:
    """What a file of the tiny store holds."""
    array, _, rest = file.rpartition("/")
    return "metadata of the arrays" if array and rest == "zarr.json" else _OF.get(array, "scalars")


def cases(folder: Path) -> Iterator[Case]:
    """All faults of all kinds of stores; files that two kinds share are damaged once."""
    seen: set[tuple[str, bytes]] = set()
    for kind in tiny_store.KINDS:
        for file, content in sorted(_judge(kind, folder).files.items()):
            if file == "zarr.json" or (file, content) not in seen:  # the root's metadata name the codec
                seen.add((file, content))
                if kind == "plain" or not file.endswith("zarr.json"):
                    yield from ((kind, fault) for fault in faults.faults(file, content))


def judged(case: Case, folder: Path) -> Verdict:
    """The verdict on one fault; the store is made by the first one of its kind in this process."""
    kind, fault = case
    return _judge(kind, folder).judge(fault)


def _judge(kind: str, folder: Path) -> Judge:
    if kind not in _judges:
        own = folder / f"{kind}-{os.getpid()}"
        own.mkdir()
        _judges[kind] = Judge(tiny_store.make(own / "s.zarr", kind))
    return _judges[kind]


def table(found: list[tuple[Case, Verdict]]) -> Table:
    """One row for each kind of file and fault."""
    out = Table("file", "fault", title="Damage of a tiny store", title_justify="left", box=None)
    for column in ("tried", "readers refuse", "read right", "verify finds", "believed", "unclear", "hung"):
        out.add_column(column, justify="right")
    places = list(dict.fromkeys(place(fault.file) for (_, fault), _ in found))
    rows = [(where, kind) for where in places for kind in faults.KINDS]
    for where, kind in [*rows, ("all", "all")]:
        some = [
            verdict
            for (_, fault), verdict in found
            if where == "all" or (place(fault.file), fault.kind) == (where, kind)
        ]
        read, verified = Counter(v.read for v in some), Counter(v.verified for v in some)
        wrong = sum(BELIEVED in (v.read, v.verified) for v in some)
        unclear, hung = (sum(what in (v.read, v.verified) for v in some) for what in (UNCLEAR, HUNG))
        numbers = (len(some), read[FOUND], read[RIGHT], verified[FOUND], wrong, unclear, hung)
        out.add_row(where, kind, *map(str, numbers))
    return out


def main() -> int:
    """Judge faults, print the table; the exit status is 1 where one is not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="number of faults; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    given = parser.parse_args()
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        chosen = list(cases(Path(folder)))
        if given.sample is not None:
            chosen = random.Random(given.seed).sample(chosen, given.sample)
        _judges.clear()
        with multiprocessing.get_context("fork").Pool(given.jobs) as pool:
            verdicts = pool.starmap(judged, ((case, Path(folder)) for case in chosen), chunksize=200)
    found = list(zip(chosen, verdicts, strict=True))
    Console(width=140).print(table(found))
    bad = [(case, verdict) for case, verdict in found if not verdict.is_good]
    for (kind, fault), verdict in bad[:BAD]:
        print(kind, fault, verdict)
    return bool(bad)


if __name__ == "__main__":
    dask.config.set(scheduler="synchronous")
    sys.exit(main())
