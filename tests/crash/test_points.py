"""Every state that an interruption may leave is judged: all of a recording and an evaluation, a choice of the others.

`make crash` judges all; docs/reference/promises.md says what is promised.
"""

import dask
import pytest
import torch
from crash.failures import FAILURES
from crash.points import Count, Run
from crash.run import counted
from crash.workloads import WORKLOADS

WHOLE = ("record", "evaluate")
"""Workloads of which each state is judged; of the others, `SOME`."""
SOME = 6
CALLS = 25
"""Number of calls that fail, of each workload and error."""


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with dask.config.set(scheduler="synchronous"):
        yield
    torch.set_num_threads(threads)


def refuse_faults(count: Count) -> None:
    assert not count.faults, "\n".join(count.faults)


@pytest.mark.slow
@pytest.mark.parametrize("name", WORKLOADS)
def test_every_interruption_leaves_what_is_promised(tmp_path, name):
    run = Run(name, tmp_path)
    assert run.replayed() == run.end
    most = None if name in WHOLE else SOME
    kills = counted(run, "kill", most)
    refuse_faults(kills)
    assert kills.states == len(run.events) + 1
    refuse_faults(counted(run, "torn write", most))
    refuse_faults(counted(run, "power failure", SOME if most else 60))
    for error in FAILURES:
        refuse_faults(counted(run, error, most or CALLS))


@pytest.mark.slow
def test_a_promise_that_is_broken_is_found(tmp_path):
    """A chunk that is marked and lost, a store that is gone, and an evaluation without one of its values."""
    run = Run("evaluate", tmp_path)
    assert run.outcome(run.start) == run.outcome(run.end) == "sound"
    broken = {
        "marked values of image": "run.zarr/image/c.",
        "the store is gone": "run.zarr",
        "the evaluation is neither": "run.zarr/judge_accuracy/0",
    }
    for what, gone in broken.items():
        state = {path: content for path, content in run.end.items() if not path.startswith(gone)}
        assert len(state) < len(run.end)
        found = run.judge([state], strict=True)
        assert len(found.faults) == 1
        assert what in found.faults[0]
