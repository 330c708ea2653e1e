"""`make bench`: measure every promise of speed and memory, as a table and as JSON.

python tests/benchmarks/run.py --json bench.json              the whole table: slow; best on an idle machine
python tests/benchmarks/run.py --only sampling                one part
python tests/benchmarks/run.py --device cuda                  on a GPU, also in the paper's size
python tests/benchmarks/run.py --quick                        check that every part runs: one round of small sizes
"""

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from measure import Case, Result, Side, alone, interleaved, judged, ratios
from rich.console import Console
from rich.table import Table
from step_shares import PARTS as STEP_PARTS
from step_shares import shares

STEPS_A_ROUND = 10
_RECORDED = {"float32": 1.05, "float16": 1.03}
"""Goals for the time of a recorded step, relative to one that is not recorded."""
_HELD: dict[str, tuple[float, str, float]] = {"memory": (16, "MB", 1e6), "files": (1, "", 1), "threads": (0, "", 1)}
"""What must not grow: largest growth, its unit, and the size of that unit."""


@dataclass(frozen=True)
class Extent:
    """How much is measured."""

    rounds: int
    samples: int = 32
    """Batch size of the shipped models."""
    inputs: tuple[str, ...] = ("x_t", "x0")
    dtypes: tuple[str, ...] = tuple(_RECORDED)
    sizes: tuple[tuple[int, int], ...] = ((32, 32), (64, 64))
    """Batch sizes and pixels for the measurement of memory."""
    lengths: tuple[int, ...] = (100, 1000)
    """Numbers of timesteps for the measurement of memory."""
    timesteps: int = 1000
    """Number of timesteps of the long run, and of the store that is read."""
    held: tuple[str, ...] = tuple(_HELD)
    """Which of `_HELD` are measured in the long run."""


QUICK = Extent(
    rounds=1,
    samples=4,
    inputs=("x_t",),
    dtypes=("float16",),
    sizes=((4, 32),),
    lengths=(20,),
    timesteps=50,
    held=("memory",),
)
"""Small sizes, whose numbers must not be cited."""


def settings(device: str, extent: Extent) -> Iterator[tuple[str, dict[str, Any]]]:
    """Names and options of the sampling runs: the shipped models at 32 px, and on a GPU also models of 64 px."""
    sizes = [("shipped", extent.samples), *([("paper", 64), ("paper", 256)] if device.startswith("cuda") else [])]
    for (models, samples), classifier_input in product(sizes, extent.inputs):
        name = f"{classifier_input}, {models} models, batch {samples}"
        yield name, {"classifier_input": classifier_input, "samples": samples, "device": device, "models": models}


def sampling(device: str, extent: Extent) -> Iterator[Result]:
    """Guided sampling with and without recording, the plain loop, and the models' own passes."""
    rounds = extent.rounds
    for name, options in settings(device, extent):
        ours, floor = Case("sampling:sampled", options), Case("sampling:floor", options)
        plain, recorded = Case("sampling:plain", options), Case("sampling:recorded", options)
        for dtype in extent.dtypes:
            kept = Case("sampling:recorded", {**options, "dtype": dtype})
            yield _steps(f"recorded in {dtype} / not recorded: {name}", kept, ours, rounds, "<=", _RECORDED[dtype])
        goal = 2.5 if device.startswith("cuda") else {"x0": 1.8, "x_t": 1.3}[options["classifier_input"]]
        yield _steps(f"plain loop / recorded: {name}", plain, recorded, rounds, ">=", goal)
        watched = Case("sampling:watched", options)
        yield _steps(f"watched / not watched, the plain loop: {name}", watched, plain, rounds, "<=", 1.05)
        yield _steps(f"not recorded / the models' own passes: {name}", ours, floor, rounds, "<=", 1.1)


def _steps(what: str, a: Case, b: Case, rounds: int, side: Side, bound: float) -> Result:
    found = interleaved(a, b, rounds)
    first, second = (1e3 * sum(times) / len(times) / STEPS_A_ROUND for times in found)
    return judged(what, ratios(*found), side, bound, detail=f"{first:.1f} / {second:.1f} ms a step")


def controls(device: str, extent: Extent) -> Iterator[Result]:
    """A whole run, whose cells at scale 0 share one trajectory."""
    options = {"samples": extent.samples // 2, "steps": extent.timesteps // 50, "device": device}
    cases = [Case("controls:both", {**options, "together": together}) for together in (True, False)]
    found = interleaved(*cases, max(1, extent.rounds // 4))
    yield judged("both.yaml, its controls together / cell after cell", ratios(*found), "<=", 0.6)


def memory(device: str, extent: Extent) -> Iterator[Result]:
    """Memory that recording adds to the process."""
    for (samples, size), timesteps in product(extent.sizes, extent.lengths):
        options = {"samples": samples, "size": size, "timesteps": timesteps, "device": device}
        cases = [Case("memory:peak", {**options, "recorded": recorded}) for recorded in (True, False)]
        with_it, without = (alone(case, warm=False)[0] / 1e6 for case in cases)
        what = f"memory added: batch {samples}, {size} px, {timesteps:,} timesteps"
        yield judged(what, [with_it - without], "<=", 256, "MB", f"{with_it:.0f} - {without:.0f} MB")


def long_runs(device: str, extent: Extent) -> Iterator[Result]:
    """Whether anything grows with the length of a run."""
    timesteps = extent.timesteps
    for what in extent.held:
        bound, unit, scale = _HELD[what]
        case = Case("long_runs:growth", {"what": what, "timesteps": timesteps, "cells": 8, "device": device})
        grown = alone(case, warm=False)[0] / scale
        about = f"{what} after 8 cells of {timesteps:,} timesteps, beyond those after one"
        yield judged(about, [grown], "<=", bound, unit)


def storing(device: str, extent: Extent) -> Iterator[Result]:
    """Writing and reading a store, beside raw files of the same bytes."""
    rounds, options = extent.rounds, {"timesteps": extent.timesteps // 2}
    found = interleaved(Case("storing:stored", options), Case("storing:raw", options), rounds)
    yield judged("writing a store / writing its bytes raw", ratios(*found), "<=", 3)
    with tempfile.TemporaryDirectory() as folder:
        here = {"path": f"{folder}/run.zarr"}
        alone(Case("storing:make", {**here, "timesteps": extent.timesteps}), warm=False)
        ways: dict[str, tuple[Case, float]] = {
            "the chunks": (Case("storing:chunk_trajectory", here), 5),
            "xarray.open_zarr(chunks=None)": (Case("storing:zarr_trajectory", {**here, "dask": False}), 20),
            "xarray.open_zarr, through dask": (Case("storing:zarr_trajectory", {**here, "dask": True}), 35),
            "gradscope.open, through dask": (Case("storing:trajectory", here), 35),
        }
        for way, (case, goal) in ways.items():
            found = interleaved(case, Case("storing:raw_trajectory", here), 2 * rounds)
            milliseconds = 500 * sum(found[0]) / len(found[0])
            what = f"reading one sample's trajectory by {way} / its bytes raw"
            yield judged(what, ratios(*found), "<=", goal, detail=f"{milliseconds:.0f} ms")
        found = interleaved(Case("storing:disk_read", here), Case("storing:cosines", here), rounds)
        yield judged("rate of recomputing cosines / of reading the disk, cold", ratios(*found), ">=", 0.5)
        grown = alone(Case("storing:cosines_memory", here), warm=False)
        yield judged("memory of recomputing cosines", [grown[0] / 1e6], "<=", 1000, "MB")


def startup(device: str, extent: Extent) -> Iterator[Result]:
    """Times that a user waits before anything happens."""
    rounds = extent.rounds
    found = interleaved(Case("startup:help_page", {}), Case("startup:bare", {}), rounds)
    extra = [500 * (help_page - bare) for help_page, bare in zip(*found, strict=True)]
    yield judged("gradscope --help, beyond python -c pass", extra, "<=", 300, "ms")
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/run.zarr"
        alone(Case("storing:make", {"path": path, "timesteps": 50}), warm=False)
        seconds = alone(Case("startup:dashboard", {"store": path}), rounds)
        yield judged("gradscope dashboard, to its first page", seconds, "<=", 2, "s")
    rates = [2000 / seconds for seconds in alone(Case("startup:sportballs", {"images": 2000}), rounds)]
    yield judged("SportBalls of 32 px, on one core", rates, ">=", 2000, "images/s")


PARTS: dict[str, Callable[[str, Extent], Iterator[Result]]] = {
    "sampling": sampling,
    "controls": controls,
    "memory": memory,
    "long_runs": long_runs,
    "storing": storing,
    "startup": startup,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=PARTS, action="append", help="the part to measure; by default all")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--quick", action="store_true", help="one round of small sizes, to check that every part runs")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch
        measure(arguments)


def measure(arguments: argparse.Namespace) -> None:
    extent = QUICK if arguments.quick else Extent(arguments.rounds)
    console, results = Console(width=160), []
    for part in arguments.only or PARTS:
        for result in PARTS[part](arguments.device, extent):
            results.append(result)
            console.print(f"{result.what}: {result.median:.3g} {result.unit}", highlight=False)
    console.print(results_table(results, arguments.device))
    steps = {}
    if "sampling" in (arguments.only or PARTS):
        steps = {name: shares(options) for name, options in settings(arguments.device, extent)}
        console.print(shares_table(steps))
    if arguments.json is not None:
        about = {"machine": machine(arguments.device), "torch": torch.__version__, "rounds": extent.rounds}
        found = {"results": [result.asdict() for result in results], "shares": steps}
        arguments.json.write_text(json.dumps({**about, **found}, indent=1))


def results_table(results: list[Result], device: str) -> Table:
    table = Table(title=f"Speed and memory on {machine(device)}", caption="median and quartiles of n rounds", box=None)
    for head in ("what", "goal", "median", "quartiles", "unit", "n", "met", "detail"):
        table.add_column(head, justify="right" if head in ("median", "n") else "left", no_wrap=True)
    for r in results:
        spread, met = f"{r.low:.3g} to {r.high:.3g}", "yes" if r.met else "no"
        table.add_row(r.what, r.goal, f"{r.median:.3g}", spread, r.unit, str(r.n), met, r.detail)
    return table


def shares_table(steps: dict[str, dict[str, float]]) -> Table:
    table = Table(title="Where a recorded step's time goes, each part waited for (%)", box=None)
    table.add_column("sampling", no_wrap=True)
    for head in (*STEP_PARTS, "ms a step"):
        table.add_column(head, justify="right")
    for name, found in steps.items():
        percent = [f"{100 * found[part]:.1f}" for part in STEP_PARTS]
        table.add_row(name, *percent, f"{1e3 * found['seconds']:.1f}")
    return table


def machine(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} cores {platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
