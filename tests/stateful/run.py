"""`make crash`: random steps of two processes on two stores, each compared with what the stores must say.

PYTHONPATH=tests python -m stateful.run                 100,000 steps, on all cores: hours
PYTHONPATH=tests python -m stateful.run --steps 1000
"""

import argparse
import multiprocessing
import os
import resource
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import dask
import torch
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from stateful.machine import Stores, taken

from gradscope.store.locations import lock

EXAMPLES, LONGEST = 5, 50
"""Examples between two looks at the number of steps, and the longest one."""


def run(steps: int, start: int) -> Counter[str]:
    """Take at least this many steps; what was done how often. A wrong one raises, with the steps that lead there."""
    torch.set_num_threads(1)
    dask.config.set(scheduler="synchronous")
    lock._PAUSE = 0.0  # who holds a lock here has stopped: waiting for it is in vain
    taken.clear()
    number = start
    while taken.total() < steps:
        run_state_machine_as_test(
            seed(number)(Stores),
            settings=settings(
                max_examples=EXAMPLES, stateful_step_count=LONGEST, deadline=None, database=None,
                phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
            ),
        )  # fmt: skip
        number += 1
    return taken


def together(steps: int, start: int, jobs: int) -> Counter[str]:
    """The same steps, shared by some processes."""
    starts = [start + 10_000 * job for job in range(jobs)]
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        return sum(pool.map(run, [-(-steps // jobs)] * jobs, starts), Counter())


def main() -> None:
    """Take the steps, and print how many of each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    given = parser.parse_args()
    found = together(given.steps, given.seed, given.jobs)
    for what, count in found.most_common():
        print(f"{count:8} {what}")
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{found.total():8} steps, none of them wrong; {used.ru_utime + used.ru_stime:.0f} s of CPU")


if __name__ == "__main__":
    sys.exit(main())
