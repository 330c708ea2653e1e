"""Memory and files do not grow with the length of a run."""

import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length_of_a_run(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import long_runs

    found = long_runs.held_by_cell(tmp_path / "run.zarr", timesteps=1000, cells=8)
    assert [len(values) for values in found.values()] == [8, 8, 8]
    assert max(found["files"]) - min(found["files"]) <= 1  # the writer may have one file open
    assert len(set(found["threads"])) == 1
    assert found["memory"][-1] - found["memory"][0] < 16e6
    sys.modules.pop("long_runs")
