"""Judge every state that an interruption may leave, and print the numbers as a table; `make crash`.

PYTHONPATH=tests python -m crash.run                    all workloads and interruptions
PYTHONPATH=tests python -m crash.run --only evaluate    one workload
PYTHONPATH=tests python -m crash.run --kinds kill,EIO   some kinds of interruptions
"""

import argparse
import logging
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import dask
import torch
from crash.failures import FAILURES, failed
from crash.points import Count, Run
from crash.workloads import WORKLOADS

KINDS = ("kill", "torn write", "power failure", *FAILURES)
LOST = 300
"""Largest number of states after a power failure that are judged where the data were not flushed to disk."""


def counted(run: Run, kind: str, most: int | None = None) -> Count:
    """Judge one kind of interruption; of its states, or of the calls that fail, at most `most`."""
    match kind:
        case "kill":
            return run.judge(run.kills(), strict=True, most=most)
        case "torn write":
            return run.judge(run.torn(), strict=True, most=most)
        case "power failure":
            durable = run.workload.durable
            return run.judge(run.power_failures(), strict=durable, most=most if most or durable else LOST)
    count = Count()
    return run.judge(failed(run, kind, count, most), strict=True, count=count)


def rows(names: list[str], kinds: list[str], folder: Path, most: int | None) -> Iterator[tuple[str, str, Count]]:
    """Workload, kind of interruption, and numbers."""
    for name in names:
        run = Run(name, folder)
        if run.replayed() != run.end:
            raise SystemExit(f"{name}: the trace does not rebuild what is on the disk")
        for kind in kinds:
            yield name, kind, counted(run, kind, most)


def main() -> None:
    """Print the table; exit with status 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=WORKLOADS, action="append")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument(
        "--most", type=int, help="judge at most this number of states, or of calls that fail, drawn at random"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    dask.config.set(scheduler="synchronous")
    logging.disable()  # of tasks that fail as they should
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    faults: list[str] = []
    print("| workload | interruption | points | states | distinct | judged | outcomes | faults | CPU s |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        for name, kind, count in rows(
            options.only or [*WORKLOADS], options.kinds.split(","), Path(folder), options.most
        ):
            outcomes = ", ".join(f"{number} {what}" for what, number in sorted(count.outcomes.items()))
            numbers = (count.points, count.states, count.distinct, count.judged)
            print("|", name, "|", kind, "|", " | ".join(f"{n:,}" for n in numbers), "|", outcomes, "|",
                  len(count.faults), "|", f"{count.seconds:.0f}", "|", flush=True)  # fmt: skip
            for fault in count.faults:
                print("   ", fault[:600], file=sys.stderr, flush=True)
            faults += count.faults
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
