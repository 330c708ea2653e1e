"""The benchmarks' own arithmetic, their page, and the rehearsal of the part for GPUs."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tests" / "benchmarks"


@pytest.fixture
def bench(monkeypatch):
    """Import a module of the benchmarks, which import each other by bare names."""
    monkeypatch.syspath_prepend(str(FOLDER))
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if (FOLDER / f"{name}.py").exists():
            del sys.modules[name]


def test_a_row_has_median_quartiles_and_its_goal(bench):
    measure = bench("measure")
    values = [1.0, 4.0, 2.0, 8.0, 16.0]
    row = measure.judged("x", values, "<= 4")
    assert (row.median, row.n, row.met) == (4.0, 5, True)
    assert (row.low, row.high) == tuple(np.quantile(values, [0.25, 0.75], method="weibull"))
    assert measure.judged("x", values, "<= 3.9").met is False
    assert measure.judged("x", values, ">= 4").met is True
    assert measure.judged("x", values, ">= 4.1").met is False
    assert measure.judged("x", values).met is None
    assert measure.ratios([6.0, 1.0], [3.0, 4.0]) == [2.0, 0.25]


class Turns:
    """Stands in for a process; keeps the order of turns."""

    def __init__(self, case):
        self.case = case

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def run(self):
        ORDER.append(self.case)
        return len(ORDER)


ORDER: list[str] = []


def test_the_cases_take_turns_forwards_and_backwards(bench, monkeypatch):
    measure = bench("measure")
    monkeypatch.setattr(measure, "Worker", Turns)
    ORDER.clear()
    found = measure.interleaved({"a": "a", "b": "b", "c": "c"}, rounds=2)
    assert "".join(ORDER) == "abc" + 2 * "abccba"
    assert found["a"] == [(4 + 9) / 2, (10 + 15) / 2]
    assert found["b"] == found["a"]  # a drift that is linear in time cancels
    assert found["c"] == found["a"]


def part(quick: bool = False, **row) -> dict:
    about = {"machine": "two CPU cores", "torch": "2", "gradscope": "0", "quick": quick, "seconds": 60.0}
    usual = {"what": "a / b", "goal": "<= 1.1", "met": True, "median": 1.0, "low": 0.9, "high": 1.2, "n": 6}
    return about | {"results": [usual | {"unit": "ratio", "detail": ""} | row]}


def test_the_page_and_the_notes_have_a_place_for_every_part(bench):
    page = bench("page")
    run = dict.fromkeys(page.PARTS, part()) | {"memory": part(met=False, median=1.3, unit="MB", n=1)}
    page.refuse(run)
    text = page.filled(page.PAGE.read_text(), {name: page.part_table(run[name]) for name in page.PARTS})
    assert text.count("| a / b | 1 [0.9, 1.2] | <= 1.1 | 6 |\n") == len(page.PARTS) - 1
    assert text.count("| a / b | 1.3 MB | <= 1.1, missed | 1 |\n") == 1
    again = page.filled(text, {name: page.part_table(run[name]) for name in page.PARTS})
    assert again == text
    notes = page.filled(page.NOTES.read_text(), {page.RUNS: page.run_tables(run)})
    assert f"{len(page.PARTS)}.0 minutes." in notes


def test_results_that_must_not_be_cited_are_refused(bench):
    page = bench("page")
    run = dict.fromkeys(page.PARTS, part())
    with pytest.raises(SystemExit, match="measured with --quick.*: reading"):
        page.refuse(run | {"reading": part(quick=True)})
    del run["sampling"]
    with pytest.raises(SystemExit, match="not measured: sampling"):
        page.refuse(run)


def test_what_could_not_be_measured_says_why(bench):
    page, measure = bench("page"), bench("measure")
    assert page.measured(measure.missing("x", "zarrs is not installed")) == "zarrs is not installed"


@pytest.mark.slow
def test_the_part_for_gpus_is_rehearsed(tmp_path):
    file = tmp_path / "gpu.json"
    command = [sys.executable, str(FOLDER / "gpu.py"), "--device", "cpu", "--rehearse", "--graphs", "--json", str(file)]
    subprocess.run(command, check=True, timeout=300)
    found = json.loads(file.read_text())
    (rows,) = (part["results"] for part in found.values())
    what = {row["what"].split(":")[0] for row in rows}
    assert what == {
        "recorded / not recorded",
        "recorded in float16 / not recorded",
        "plain loop / recorded",
        "plain loop that flushes denormals / recorded",
        "not recorded / the models' own passes",
        "not recorded / not recorded, CUDA graphs",
        "recorded, CUDA graphs / not recorded, CUDA graphs",
        "plain loop / recorded, CUDA graphs",
        "share of the models in a recorded step, each part waited for",
    }
    assert all(np.isfinite(row["median"]) and row["n"] for row in rows)
    assert 0 < rows[-1]["median"] < 1


@pytest.mark.parametrize("library", ["zarr", "zarr with zarrs", "tensorstore"])
@pytest.mark.parametrize(("timesteps", "size"), [(100, 8), (3, 16)])
def test_other_libraries_write_and_read_the_same_store(library, timesteps, size, tmp_path, bench, monkeypatch):
    writing, others, stores = bench("writing"), bench("others"), bench("stores")
    if others.absent(library):
        pytest.skip(others.absent(library))
    monkeypatch.setattr(writing, "_timed", lambda write: lambda path: write(path))
    with zarr.config.set({"codec_pipeline.path": zarr.config.get("codec_pipeline.path")}):
        writing.by(library, timesteps, size)(tmp_path / "theirs.zarr")
        read = others.reader(library, str(tmp_path / "theirs.zarr" / "gradient"))((0, 0, 0, 0, 40))
    stores.fill(tmp_path / "ours.zarr", stores.schema(timesteps, size))
    ours, theirs = (zarr.open_group(tmp_path / f"{name}.zarr", mode="r") for name in ("ours", "theirs"))
    for name in ("gradient", "update", "gradient_norm", "written"):
        np.testing.assert_array_equal(theirs[name][:], ours[name][:])
    np.testing.assert_array_equal(read, ours["gradient"][0, 0, 0, 0, 40])
