"""Runs in several processes record the bytes of a run in one process, even if workers die."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import dask
import numpy as np
import psutil
import pytest
import small_run
import torch
from distributed import Client, LocalCluster
from small_run import BLOCKS, assert_same_recording, config, environment, recorded_bytes

import gradscope
from gradscope.errors import GradscopeError
from gradscope.recording import distributed
from gradscope.recording.cluster import cluster
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _modules() -> Iterator[None]:
    """Environment that the workers inherit from this process."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler=None):
        for key, value in environment().items():
            patch.setenv(key, value)
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The run in one process and one thread."""
    path = tmp_path_factory.mktemp("alone") / "run.zarr"
    torch.set_num_threads(1)
    record_run(prepare(config(path), "cpu"))
    return path


@pytest.fixture(scope="module", params=[2, 4])
def client(request) -> Iterator[Client]:
    with cluster(request.param, None) as made:
        yield made


def begin(client: Client, path: Path, **options) -> distributed.Begun:
    return distributed.begin(client, config(path), device="cpu", threads=1, **options)


def test_several_processes_record_the_bytes_of_one(client, alone, tmp_path):
    begun, cells = begin(client, tmp_path / "run.zarr"), []
    outcome = distributed.record_blocks(client, begun, cells.append)
    assert recorded_bytes(tmp_path / "run.zarr") == recorded_bytes(alone)
    assert sorted(cells) == sorted(3 * [(0, i, j, 0) for i in (0, 1) for j in (0, 1)])
    ours, theirs = (open_store(path).attrs for path in (outcome.path, alone))
    assert ours["status"] == "complete"
    for key in ("threads", "device", "configuration_hash", "weights_sha256"):
        assert ours[key] == theirs[key]
    assert outcome.bytes >= begun.bytes
    run = begun.task.id
    assert sum(client.run(lambda: run in distributed._loaded).values()) > 1  # number of processes that recorded


def test_a_worker_that_is_killed_is_replaced_and_its_block_is_recorded_again(client, alone, tmp_path):
    path, killed = tmp_path / "run.zarr", []

    def kill() -> None:
        """Kill a busy worker as soon as a second block is begun."""
        busy, end = [], time.monotonic() + 60
        while not busy and time.monotonic() < end:
            time.sleep(0.005)
            if len(list((path / "written").glob("c.*"))) >= 2:
                busy = [address for address, tasks in client.processing().items() if tasks]
        for process in client.run(os.getpid, workers=busy[:1]).values():
            os.kill(process, signal.SIGKILL)
            killed.append(process)

    begun = begin(client, path)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    distributed.record_blocks(client, begun)
    killer.join(60)
    assert killed
    assert recorded_bytes(path) == recorded_bytes(alone)
    client.wait_for_workers(2)
    assert killed[0] not in client.run(os.getpid).values()


def test_a_worker_with_a_gpu_records_one_block_at_a_time(alone, tmp_path):
    def executing(dask_worker) -> int:
        return dask_worker.state.executing_count

    settings = {"n_workers": 1, "threads_per_worker": 3, "memory_limit": 0, "dashboard_address": None}
    with LocalCluster(resources={"GPU": 1}, **settings) as local, Client(local, set_as_default=False) as client:
        for device, expected in (("cpu", {2, 3}), ("cuda", {1})):  # the resource alone counts for the scheduler
            path, counts = tmp_path / f"{device}.zarr", []
            begun = replace(begin(client, path), device=device)
            distributed.record_blocks(client, begun, lambda cell, counts=counts: counts.append(client.run(executing)))
            assert {max(next(iter(count.values())) for count in counts)} <= expected
            assert recorded_bytes(path) == recorded_bytes(alone)


def test_workers_that_declare_no_gpu_are_refused(client, tmp_path, monkeypatch):
    begun = replace(begin(client, tmp_path / "run.zarr"), device="cuda")
    known = client.scheduler_info()
    monkeypatch.setattr(client, "scheduler_info", lambda: {"workers": {k: {"resources": {}} for k in known["workers"]}})
    with pytest.raises(GradscopeError, match="no worker declares a GPU; start them with --resources GPU=1"):
        distributed.record_blocks(client, begun)


def test_an_error_stops_all_workers_and_the_run_resumes(client, alone, tmp_path, monkeypatch):
    path = tmp_path / "run.zarr"
    begun = begin(client, path)
    done = []

    def stop(cell) -> None:
        done.append(cell)
        if len(done) == 3:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as failed:
        distributed.record_blocks(client, begun, stop)
    # No worker records after the lock is released. One that is still loading the run stops before it records.
    run = begun.task.id
    assert not any(client.run(lambda: run in distributed._loaded and distributed._one_at_a_time.locked()).values())
    (note,) = failed.value.__notes__
    assert note.endswith(f"of {BLOCKS} blocks are recorded in {path}; continue with: gradscope record --resume {path}")
    assert open_store(path).attrs["status"] == "interrupted"
    again = []
    distributed.record_blocks(client, begin(client, path, resume=True), again.append)
    assert 0 < len(again) <= BLOCKS - 3
    assert recorded_bytes(path) == recorded_bytes(alone)


def test_workers_with_other_weights_than_the_store_are_refused(client, tmp_path):
    path = tmp_path / "run.zarr"
    begun = begin(client, path)
    before = json.loads(open_store(path).attrs["weights_sha256"])["classifiers.robust"]
    try:
        client.run(small_run.draw_robust_from, 7)
        with pytest.raises(GradscopeError, match="the weights of classifiers.robust are not those it was begun with"):
            distributed.record_blocks(client, begun)
        run = begun.task.id
        assert sum(client.run(lambda: run in distributed._loaded).values()) <= 1  # the worker that began the run
        distributed.record_blocks(client, begin(client, path, overwrite=True))  # no worker keeps the earlier models
    finally:
        client.run(small_run.draw_robust_from, 1)
    assert json.loads(open_store(path).attrs["weights_sha256"])["classifiers.robust"] != before
    assert open_store(path).attrs["status"] == "complete"


def test_finished_blocks_of_a_dead_worker_are_not_recorded_again(client, tmp_path, monkeypatch):
    path, kept = tmp_path / "run.zarr", []
    begun = begin(client, path)

    def kill_all(cell) -> None:
        if not kept:
            kept.append([file for file in (path / "written").glob("c.*") if np.frombuffer(
                file.read_bytes()[:-4], np.uint8).all()])  # fmt: skip
            kept.append([file.stat().st_mtime_ns for file in kept[0]])
            for process in client.run(os.getpid).values():
                os.kill(process, signal.SIGKILL)

    distributed.record_blocks(client, begun, kill_all)
    assert kept[0]
    assert [file.stat().st_mtime_ns for file in kept[0]] == kept[1]


def test_a_cancelled_task_is_reported(client):
    future = client.submit(time.sleep, 30, pure=False)
    client.cancel([future], force=True)
    with pytest.raises(GradscopeError, match="the scheduler is gone"):
        distributed._result(future)


def test_errors_for_the_user_come_back_from_the_workers(client, alone, tmp_path):
    with pytest.raises(GradscopeError, match=r"run.zarr exists; choose another path") as refused:
        begin(client, alone)
    assert refused.value.for_command().startswith(f"recording.path: {alone} exists; choose another path (--store)")
    broken = config(tmp_path / "run.zarr").model_copy(update={"denoiser": "small_run:absent"})
    with pytest.raises(GradscopeError, match="denoiser: small_run has no 'absent'"):
        distributed.begin(client, broken, device="cpu", threads=1)
    assert not (tmp_path / "run.zarr").exists()


def test_analysis_runs_on_the_same_cluster(client, alone):
    ds = gradscope.open(alone)
    norm = (ds["gradient"].isel(sample=slice(5)) ** 2).sum(("channel", "height", "width")) ** 0.5
    there = client.compute(norm.data).result()
    values = ds["gradient"].isel(sample=slice(5)).values.astype(np.float64)
    expected = np.linalg.norm(values.reshape(*values.shape[:-3], -1), axis=-1)
    np.testing.assert_allclose(there, expected, rtol=1e-5)
    np.testing.assert_allclose(there, ds["gradient_norm"].isel(sample=slice(5)).values, rtol=1e-5)


def test_a_port_of_a_dask_worker_is_refused(client):
    (worker, *_) = client.scheduler_info()["workers"]
    with pytest.raises(GradscopeError, match="a dask worker listens there, not"), cluster(None, worker):
        pass


def test_the_cluster_of_this_machine_listens_on_it_alone(client):
    ours = {process.pid for process in (psutil.Process(), *psutil.Process().children(recursive=True))}
    found = [each for each in psutil.net_connections("tcp") if each.pid in ours and each.status == "LISTEN"]
    assert len(found) >= 3
    assert {each.laddr.ip for each in found} == {"127.0.0.1"}


def test_the_command_line_records_on_a_scheduler(client, alone, tmp_path):
    from typer.testing import CliRunner

    from gradscope import cli

    (tmp_path / "run.json").write_text(config(tmp_path / "recorded.zarr").model_dump_json())  # JSON is YAML
    found = CliRunner().invoke(
        cli.app,
        ["record", "--config", str(tmp_path / "run.json"), "--scheduler", client.scheduler.address, "--device", "cpu"],
    )
    assert found.exit_code == 0, found.output
    assert "recorded.zarr" in found.output
    assert_same_recording(tmp_path / "recorded.zarr", alone)


def test_ctrl_c_ends_all_processes_and_is_reported_once(tmp_path):
    long = config(tmp_path / "run.zarr", sampling={"num_inference_steps": 100})
    (tmp_path / "run.json").write_text(long.model_dump_json())
    program = ["env", "--default-signal=INT", sys.executable, "-m", "gradscope"]  # a shell's background jobs ignore it
    command = [*program, "record", "--config", "run.json", "--workers", "2", "--device", "cpu"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=output, stderr=output, start_new_session=True)
        end = time.monotonic() + 300  # three processes load torch
        while not (tmp_path / "run.zarr" / "image" / "c.0.0.0.0.1.0.0.0").exists():
            assert process.poll() is None
            assert time.monotonic() < end
            time.sleep(0.01)
        started = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait() == 130
    assert len(started) >= 2
    assert not psutil.wait_procs(started, timeout=30)[1]
    text = (tmp_path / "output").read_text()
    assert "Traceback" not in text
    assert text.count("gradscope: interrupted; ") == 1
    assert f"continue with: gradscope record --resume {tmp_path / 'run.zarr'}" in text
    assert open_store(tmp_path / "run.zarr").attrs["status"] == "interrupted"
