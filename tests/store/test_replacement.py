"""An evaluation replaces an earlier one atomically, however its process ends."""

import json
import os
import subprocess
import sys
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from sound_store import ABOUT, CELLS, KINDS, SAMPLES, Kind, copied, make, stores  # noqa: F401  (a fixture)

import gradscope
from gradscope.errors import GradscopeError
from gradscope.store import CELL_DIMS, add_variables, open_store, replacement
from gradscope.store.contents import contents
from gradscope.store.locations.location import locate
from gradscope.store.opening import open_arrays
from gradscope.store.session import recording
from gradscope.verification.chunks import examine
from gradscope.verification.verify import verify

EARLIER = ("class", "confusion", "own_accuracy", "own_prediction")
LATER = ("floor", "judge_prediction", "own_accuracy", "own_prediction")


def later() -> xr.Dataset:
    """An evaluation with other values, fewer and further names, and one single number."""
    prediction = ((*CELL_DIMS, "sample"), np.ones((*CELLS, SAMPLES), "int16"), ABOUT)
    found = xr.Dataset(
        {
            "own_prediction": prediction,
            "judge_prediction": prediction,
            "own_accuracy": (CELL_DIMS, np.full(CELLS, 0.75), ABOUT),
            "floor": ((), 0.5, ABOUT),
        }
    )
    return found.assign_attrs(evaluation=json.dumps({"judge": "none", "variables": sorted(map(str, found.variables))}))


def evaluate(path: Path, found: xr.Dataset | None = None) -> None:
    add_variables(path, later() if found is None else found, instead_of=EARLIER)


def evaluation_of(path: Path) -> str:
    """Which evaluation a store has by its attributes; checks that all values are of this evaluation."""
    plain, ours = xr.open_zarr(path, mask_and_scale=False), gradscope.open(path)
    names = json.loads(plain.attrs["evaluation"])["variables"]
    for ds in (plain, ours):
        if "floor" in names:
            assert set(LATER) == set(names) == {*LATER} & {*ds.variables}
            assert not {"class", "confusion"} & {*ds.variables}
            assert (ds["own_prediction"].values == 1).all()
            assert (ds["judge_prediction"].values == 1).all()
            assert (ds["own_accuracy"].values == 0.75).all()
            assert ds["floor"].values == 0.5
        else:
            assert set(EARLIER) == set(names) == {*EARLIER, "judge_prediction", "floor"} & {*ds.variables}
            assert (ds["own_prediction"].values == 0).all()
            assert (ds["own_accuracy"].values == 0.5).all()
            assert (ds["confusion"].values == 1).all()
            assert ds["class"].values.tolist() == ["a", "b"]
    return "later" if "floor" in names else "earlier"


KILLED = """
import os, shutil, sys
from pathlib import Path
import dask.array, numpy, zarr, zarr.storage  # imported before the fork: later imports would start threads
import test_replacement
from gradscope.store import open_store

original, folder = Path(sys.argv[1]), Path(sys.argv[2])
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
number = 0
while True:
    path = folder / f"{number}.zarr"
    shutil.copytree(original, path)
    if (child := os.fork()) == 0:
        left = number

        def die(event, arguments):
            global left
            changes = event in CHANGES and (event != "open" or not str(arguments[1] or "").startswith("r"))
            if changes and str(path) in str(arguments[0]):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), 9)

        sys.addaudithook(die)
        test_replacement.evaluate(path)
        os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    number += 1
print(number)
"""


@pytest.mark.slow
def test_a_kill_at_any_step_leaves_the_earlier_or_the_later_evaluation(tmp_path):
    """A step is a file that is opened for writing, renamed or removed."""
    store = make(tmp_path / "s.zarr", Kind(blocks=0))
    command = [sys.executable, "-c", KILLED, store, tmp_path]
    paths = os.pathsep.join([*sys.path, str(Path(__file__).parent)])
    environment = os.environ | {"PYTHONPATH": paths}
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    steps = int(out.stdout)
    assert steps > 30
    sound, seen = verify(store), []
    for number in range(steps):
        path = tmp_path / f"{number}.zarr"
        seen.append(evaluation_of(path))
        assert not (wrong := [*map(str, examine(locate(path)).findings)]), f"{number}: {wrong}"
        if number % 10 == 0:  # the next evaluation removes the leftovers
            evaluate(path)
            assert evaluation_of(path) == "later"
            found = verify(path)  # recomputes values, too
            assert (found.findings, found.remarks) == ((), sound.remarks)
            assert not [file for file in path.rglob("*") if file.name.endswith(".partial")]
            assert not (path / "confusion").exists()
    assert seen == sorted(seen), "first the earlier one, then the later"
    assert {*seen} == {"earlier", "later"}


def test_an_error_leaves_the_earlier_evaluation_and_no_files(stores, tmp_path, monkeypatch):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    files = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    location, calls = locate(path), count()
    replace = type(location).replace

    def interrupted(self, key, content):
        if next(calls) == 4:
            raise KeyboardInterrupt
        replace(self, key, content)

    monkeypatch.setattr(type(location), "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(path)
    assert evaluation_of(path) == "earlier"
    left = {file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert {key: json.loads(left[key]) if key.name == "zarr.json" else left[key] for key in left} == {
        key: json.loads(files[key]) if key.name == "zarr.json" else files[key] for key in files
    }


@pytest.mark.slow
def test_evaluations_follow_one_another(stores, tmp_path):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    earlier = xr.open_zarr(path)
    before = earlier[[*EARLIER[1:]]].load().drop_vars({*earlier.coords} - {"class"}, errors="ignore")
    for number in range(4):
        if number % 2:
            add_variables(path, before.assign_attrs(evaluation=earlier.attrs["evaluation"]), instead_of=LATER)
        else:
            evaluate(path)
        assert evaluation_of(path) == ("earlier" if number % 2 else "later")
        found = examine(locate(path))
        assert (found.findings, found.remarks) == ([], [])


def test_a_store_opened_before_an_evaluation_gives_no_fill_values(stores, tmp_path):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    before = gradscope.open(path)
    evaluate(path)
    with pytest.raises(GradscopeError, match="evaluated or grew since it was opened, open it again"):
        _ = before["own_prediction"].values


READERS = {open_store: "xarray.open_zarr", contents: "gradscope.store.contents.open_arrays"}
"""What opens the arrays for a reader."""


@pytest.mark.parametrize("reader", READERS)
def test_a_store_that_is_evaluated_while_it_is_opened_is_opened_again(stores, tmp_path, monkeypatch, reader):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    opened = []
    open_first = {open_store: xr.open_zarr, contents: open_arrays}[reader]

    def then_evaluated(*args, **kwargs):
        opened.append(open_first(*args, **kwargs))
        if len(opened) == 1:
            evaluate(path, later().assign_coords(label=("sample", np.arange(SAMPLES))))
        return opened[-1]

    monkeypatch.setattr(READERS[reader], then_evaluated)
    found = reader(path)
    assert len(opened) == 2
    assert "floor" in {*found.variables}
    label = found["label"].values if reader is open_store else found.coordinates["label"]
    np.testing.assert_array_equal(label, np.arange(SAMPLES))


@pytest.mark.parametrize("reader", READERS)
def test_a_missing_coordinate_is_an_error(stores, tmp_path, reader):  # noqa: F811
    path = copied(stores("plain"), tmp_path)
    (path / "class" / "c.0").unlink()
    with pytest.raises(GradscopeError, match="or it is damaged"):
        reader(path)


def test_a_resumed_recording_removes_leftovers_of_an_evaluation(tmp_path):
    path = make(tmp_path / "s.zarr", KINDS["interrupted"])
    (path / "own_prediction").mkdir()
    (path / "own_prediction" / "c.0").write_bytes(b"half")
    (path / replacement.JOURNAL).write_text(json.dumps(["own_prediction", "../../outside", "gradient", 1]))
    found = examine(locate(path))
    assert not found.findings
    assert "or was interrupted" in found.remarks[0]
    with recording(locate(path)):
        pass
    assert not (path / "own_prediction").exists()
    assert not (path / replacement.JOURNAL).exists()
    assert (path / "gradient").exists()


@pytest.mark.slow
def test_an_evaluation_beside_a_recording_is_refused(tmp_path):
    import torch

    from gradscope.evaluation.evaluate import evaluate_store

    path = make(tmp_path / "s.zarr", KINDS["interrupted"])
    holding = "import sys; from gradscope.store.locations.location import locate\nwith locate(sys.argv[1]).lock():\n"
    holding += "    print('held', flush=True)\n    sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holding, path], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(GradscopeError, match="another process is recording into it, or evaluating it"):
            evaluate_store(path, None, torch.device("cpu"))
        process.communicate("")
