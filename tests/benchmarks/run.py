"""`make bench`: measure every promise of speed and memory, as one table and as JSON.

python tests/benchmarks/run.py --json bench.json                   everything: best on an idle machine
python tests/benchmarks/run.py --json bench.json --only sampling   one part again; the others stay in the file
python tests/benchmarks/run.py --quick                             one round of small sizes: does every part run?
"""

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from measure import Extent, Result
from rich.console import Console
from rich.table import Table

PARTS = (
    "sampling",
    "controls",
    "watching",
    "memory",
    "long_runs",
    "writing",
    "reading",
    "live_view",
    "analysis",
    "startup",
)
"""Modules of this folder; ``results(extent)`` of each yields the rows."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=PARTS, action="append", help="the part to measure; by default all")
    parser.add_argument("--rounds", type=int, default=Extent.rounds)
    parser.add_argument("--gigabytes", type=float, choices=(1, 10), default=1, help="size of the store to analyse")
    parser.add_argument("--quick", action="store_true", help="one round of small sizes, to check that every part runs")
    parser.add_argument("--json", type=Path, help="the file of the results; parts that are not measured stay in it")
    arguments = parser.parse_args()
    extent = Extent(rounds=arguments.rounds, gigabytes=arguments.gigabytes)
    if arguments.quick:
        extent = Extent(rounds=1, quick=True)
    measured: dict[str, Any] = {}
    if arguments.only and arguments.json is not None and arguments.json.exists():
        measured = json.loads(arguments.json.read_text())
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch
        for part in arguments.only or PARTS:
            measured[part] = measure(part, import_module(part).results(extent), extent)
            measured = {name: measured[name] for name in PARTS if name in measured}
            if arguments.json is not None:
                arguments.json.write_text(json.dumps(measured, indent=1))
    Console(width=200).print(table(measured))


def measure(part: str, results: Iterator[Result], extent: Extent) -> dict[str, Any]:
    """One part: its rows, how long they took, and on what."""
    console, start = Console(width=200), time.perf_counter()
    rows: list[Result] = []
    for row in results:
        rows.append(row)
        console.print(f"{row.what}: {figure(row.median)} {row.unit} {row.detail}", highlight=False)
    seconds = time.perf_counter() - start
    console.print(f"{part}: {seconds:.0f} s", style="bold", highlight=False)
    return {
        "machine": machine(extent.device),
        "torch": torch.__version__,
        "gradscope": version("gradscope"),
        "quick": extent.quick,
        "seconds": seconds,
        "results": [asdict(row) for row in rows],
    }


def table(measured: dict[str, Any]) -> Table:
    """Every row of every part."""
    machines = ", ".join(dict.fromkeys(found["machine"] for found in measured.values()))
    seconds = sum(found["seconds"] for found in measured.values())
    small = " (small sizes, not for citing)" if any(found["quick"] for found in measured.values()) else ""
    about = f"median and quartiles of n rounds; {seconds / 60:.1f} minutes in all{small}"
    whole = Table(title=f"Speed and memory on {machines}", caption=about, box=None)
    for head in ("part", "what", "goal", "median", "quartiles", "unit", "n", "met", "detail"):
        right = head in ("median", "n")
        whole.add_column(head, justify="right" if right else "left", no_wrap=head not in ("what", "detail"))
    for part, found in measured.items():
        for row in (Result(**row) for row in found["results"]):
            met = {True: "yes", False: "no", None: ""}[row.met]
            spread = f"{figure(row.low)} to {figure(row.high)}" if row.n > 1 else ""
            n = str(row.n or "")
            whole.add_row(part, row.what, row.goal, figure(row.median), spread, row.unit, n, met, row.detail)
    return whole


def figure(value: float | None) -> str:
    """A number with three digits."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
