"""However a recording ends: marked values are complete and exact, and the run resumes to the same bytes."""

import json
import os
import random
import shutil
import signal
import subprocess
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import xarray as xr
from nursery import Nursery, nursery
from ruamel.yaml import YAML
from small_run import BLOCKS, SETTINGS, Failing, assert_same_recording, assert_sound, config, recorded_bytes

from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store, set_attributes
from gradscope.store.locations.location import locate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with the configuration."""
    folder = tmp_path_factory.mktemp("runs")
    YAML().dump(SETTINGS, folder / "run.yaml")
    return folder


@pytest.fixture(scope="module")
def processes(home) -> Iterator[Nursery]:
    with nursery(home) as made:
        yield made


def record(processes: Nursery, *arguments: str) -> None:
    status, _, err = processes.run("record", *arguments, "--device", "cpu")
    assert status == 0, err


@pytest.fixture(scope="module")
def whole(home, processes) -> Path:
    record(processes, "--config", "run.yaml", "--store", "whole.zarr")
    return home / "whole.zarr"


def test_a_process_left_by_a_failed_test_is_killed(processes):
    left = processes.begin("record", "--config", "run.yaml", "--store", "left.zarr", "--device", "cpu")
    status, out, err = processes.run("--version")
    assert (status, out.split()[0]) == (0, "gradscope"), err
    assert not psutil.pid_exists(left)


def wait_for(condition, what: str) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"no {what} within a minute"
        time.sleep(0.001)


def sound(store: Path, whole: Path) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return assert_sound(store, whole)


def chunks(store: Path, names: list[str]) -> int:
    """Number of existing chunks of these arrays."""
    return sum(len(list((store / name).glob("c.*"))) for name in names)


@pytest.mark.slow
def test_a_run_killed_anywhere_is_sound_and_resumes_to_the_same_bytes(home, processes, whole):
    moment, store = random.Random(0), home / "killed.zarr"
    names = [*open_store(whole).attrs["recorded"], "written"]
    total, kills, resumed = chunks(whole, names), 0, 0
    while kills < 24:
        again = store.exists()
        how = ["--resume", str(store)] if again else ["--config", "run.yaml", "--store", str(store)]
        wanted = moment.choice((0, moment.randint(chunks(store, names), total)))
        process = processes.begin("record", *how, "--device", "cpu")
        if not wanted:
            time.sleep(moment.uniform(0, 1.5))  # often before the first step
        while chunks(store, names) < wanted and psutil.pid_exists(process):
            time.sleep(0.001)
        time.sleep(moment.uniform(0, 0.02))
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        status, _, err = processes.end()
        assert status in (0, -signal.SIGKILL), err
        kills += status != 0
        resumed += again and status != 0
        if store.exists() and (sound(store, whole) == 1 or status == 0):
            record(processes, "--resume", str(store))
            assert recorded_bytes(store) == recorded_bytes(whole)
            shutil.rmtree(store)
        elif store.exists():
            assert open_store(store).attrs["status"] == "interrupted"
    assert resumed >= 5
    record(processes, *(["--resume"] if store.exists() else ["--config", "run.yaml", "--store"]), str(store))
    assert recorded_bytes(store) == recorded_bytes(whole)
    assert not [file.name for file in home.iterdir() if file.name.startswith(".killed")]


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_kill_during_creation_leaves_the_earlier_store(home, processes, whole, overwrite):
    moment = random.Random(1)
    store, partial = home / "made.zarr", home / ".made.zarr.partial"
    if overwrite:
        shutil.copytree(whole, store)
    for _ in range(6):
        how = ["--config", "run.yaml", "--store", store.name, "--set", "sampling.seed=7"]
        process = processes.begin("record", *how, *["--overwrite"] * overwrite, "--device", "cpu")
        wait_for(partial.exists, "store that is made")
        time.sleep(moment.uniform(0, 0.05))
        os.kill(process, signal.SIGKILL)
        status, _, err = processes.end()
        assert status == -signal.SIGKILL, err
        if store.exists() and open_store(store).attrs["status"] == "complete":
            assert recorded_bytes(store) == recorded_bytes(whole)
        elif store.exists():  # it was created before the kill
            assert set(np.unique(xr.open_zarr(store)["written"].values)) <= {0, 1, 3}
        shutil.rmtree(store, ignore_errors=True)
        if overwrite:
            shutil.copytree(whole, store)
    record(processes, "--config", "run.yaml", "--store", store.name, *["--overwrite"] * overwrite)
    assert recorded_bytes(store) == recorded_bytes(whole)
    assert not partial.exists()
    shutil.rmtree(store)


@pytest.mark.parametrize(
    ("number", "word", "expected"), [(signal.SIGTERM, "terminated", 143), (signal.SIGINT, "interrupted", 130)]
)
def test_a_terminated_run_says_how_far_it_came_and_how_to_resume(home, processes, whole, number, word, expected):
    store = home / f"{word}.zarr"
    process = processes.begin("record", "--config", "run.yaml", "--store", store.name, "--device", "cpu")
    wait_for(lambda: (store / "image" / "c.0.0.0.0.1.0.0.0").exists(), "second block")
    os.kill(process, number)
    status, _, err = processes.end()
    assert status == expected, err
    assert f"gradscope: {word}; " in err
    done = int(err.split(f"{word}; ")[1].split()[0])
    assert 2 <= done < BLOCKS
    assert f"{done} of {BLOCKS} blocks are recorded in {store.name}; " in err
    assert f"continue with: gradscope record --resume {store.name}" in err
    assert "Traceback" not in err
    assert sound(store, whole) >= done / BLOCKS
    assert open_store(store).attrs["status"] == "interrupted"
    record(processes, "--resume", store.name)
    assert recorded_bytes(store) == recorded_bytes(whole)
    assert open_store(store).attrs["status"] == "complete"
    (again,) = json.loads(open_store(store).attrs["resumed"])
    assert (again["threads"], again["device"]) == (1, open_store(whole).attrs["device"])


def test_a_run_continues_when_the_reader_of_its_output_is_gone(home, processes, whole):
    out = home / "out"
    out.unlink()
    os.mkfifo(out)
    try:
        processes.begin("record", "--config", "run.yaml", "--store", "unread.zarr", "--device", "cpu")
        with out.open() as reader:
            assert reader.readline()
    finally:
        out.unlink()
        out.touch()
    status, _, err = processes.end()
    assert (status, err) == (0, "")
    assert open_store(home / "unread.zarr").attrs["status"] == "complete"
    assert recorded_bytes(home / "unread.zarr") == recorded_bytes(whole)


def test_two_processes_do_not_record_into_one_store(home, processes, whole):
    store = home / "shared.zarr"
    shutil.copytree(whole, store)
    before = recorded_bytes(store)
    set_attributes(store, {"status": "recording"})
    assert open_store(store).attrs["status"] == "interrupted"
    with locate(store).lock():
        assert open_store(store).attrs["status"] == "recording"
        for how in (["--resume", store.name], ["--config", "run.yaml", "--store", store.name, "--overwrite"]):
            status, _, err = processes.run("record", *how, "--device", "cpu")
            assert (status, err) == (
                2,
                f"gradscope: {store.name}: another process is recording into it, or evaluating it\n",
            )
    assert recorded_bytes(store) == before


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A separate file system of 6 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        why = f"no right to mount a file system: {mounted.stderr.decode().strip()}"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def interrupted(store: Path, done: int) -> str:
    return f"{done} of {BLOCKS} blocks are recorded in {store}; continue with: gradscope record --resume {store}"


def record_with(store: Path, at_step: int = -1, act=None, resume: bool = False, **changes) -> None:
    """Record in this process, and call a function at a step."""
    steps = iter(range(10**6))

    def on_step(cell, step) -> None:
        if next(steps) == at_step:
            act()

    torch.set_num_threads(1)
    record_run(prepare(config(store, **changes), "cpu", resume=resume), on_step=on_step, resume=resume)


def test_a_full_disk_is_reported_and_the_run_resumes_when_there_is_room(small_disk, whole):
    store, filler = small_disk / "run.zarr", small_disk / "filler"

    def fill() -> None:
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    with pytest.raises(GradscopeError, match="could not be written: No space left on device") as failed:
        record_with(store, 60, fill)
    assert not list(store.rglob("*.partial"))
    (note,) = failed.value.__notes__
    done = int(note.split()[0])
    assert note == interrupted(store, done)
    assert sound(store, whole) >= done / BLOCKS > 0
    assert open_store(store).attrs["status"] == "interrupted"
    filler.unlink()
    record_with(store, resume=True)
    assert_same_recording(store, whole)


def test_a_read_only_file_system_is_reported_and_the_run_resumes(small_disk, whole):
    store = small_disk / "run.zarr"

    def remount(how: str) -> None:
        wait_for(lambda: subprocess.run(["mount", "-o", f"remount,{how}", str(small_disk)]).returncode == 0, "remount")

    with pytest.raises(GradscopeError, match="could not be written: Read-only file system") as failed:
        record_with(store, 60, lambda: remount("ro"))
    assert "continue with: gradscope record --resume" in failed.value.__notes__[0]
    assert sound(store, whole) > 0
    with pytest.raises(GradscopeError, match="Read-only file system"):
        record_with(store, resume=True)
    remount("rw")
    record_with(store, resume=True)
    assert_same_recording(store, whole)


@pytest.mark.parametrize("codec", ["none", "lz4"])
def test_a_removed_store_is_reported_and_not_created_again(tmp_path, codec):
    store = tmp_path / "run.zarr"
    with pytest.raises(GradscopeError, match=r"run.zarr was removed while it was recorded") as failed:
        record_with(store, 60, lambda: shutil.rmtree(store), recording={"codec": codec})
    assert not hasattr(failed.value, "__notes__")
    assert not store.exists()


def test_an_error_of_a_users_probe_is_raised_and_the_run_resumes(tmp_path, whole, monkeypatch):
    store, probes = tmp_path / "run.zarr", [*SETTINGS["probes"], "small_run:Failing"]
    monkeypatch.setattr(Failing, "left", 30)
    with pytest.raises(RuntimeError, match="my own mistake") as failed:
        record_with(store, probes=probes)
    assert failed.value.__notes__ == [interrupted(store, 2)]
    assert sound(store, whole) >= 2 / BLOCKS
    monkeypatch.undo()
    record_with(store, resume=True, probes=probes)
    assert_same_recording(store, whole)
