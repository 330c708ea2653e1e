"""Sampling on a GPU: against a plain loop, with and without recording, with CUDA graphs by choice, part by part.

python tests/benchmarks/gpu.py --json gpu.json                                  on a GPU, for some minutes
python tests/benchmarks/gpu.py --json gpu.json --graphs                         with CUDA graphs, too
python tests/benchmarks/gpu.py --json gpu.json --graphs --device cpu --rehearse the same code with tiny models
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from measure import Extent, Result, missing
from rich.console import Console
from run import measure, table
from sampling import compared

SIZES = (("shipped", 32), ("shipped", 256), ("paper", 64), ("paper", 256))
"""Models and batch sizes."""
GOAL = ">= 2.5"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--graphs", action="store_true", help="also measure the models as CUDA graphs")
    parser.add_argument("--rounds", type=int, default=Extent.rounds)
    parser.add_argument("--rehearse", action="store_true", help="one round of tiny models, to see that everything runs")
    parser.add_argument("--json", type=Path, required=True)
    arguments = parser.parse_args()
    extent = Extent(arguments.device, 1 if arguments.rehearse else arguments.rounds, arguments.rehearse)
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        tempfile.tempdir = scratch
        for (models, samples), seen in product(extent.size(SIZES, (("tiny", 2),)), ("x_t", "x0")[extent.quick :]):
            options = {"models": models, "samples": samples, "classifier_input": seen, "device": extent.device}
            name = f"{seen}, {models} models, batch {samples}"
            measured[name] = measure(name, _tried(name, options, extent.rounds, arguments.graphs), extent)
            arguments.json.write_text(json.dumps(measured, indent=1))
    Console(width=200).print(table(measured))
    sys.exit(any(not row["n"] for found in measured.values() for row in found["results"]))


def _tried(name: str, options: dict[str, Any], rounds: int, graphs: bool) -> Iterator[Result]:
    """The rows of one size, or one that says that it failed; the other sizes are measured all the same."""
    try:
        yield from compared(name, options, rounds, GOAL, graphs)
    except EOFError:  # a process ended
        yield missing(name, "failed; the error is printed above")


if __name__ == "__main__":
    main()
