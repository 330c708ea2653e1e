"""Stores in an object store: S3's protocol over real HTTP, to a server on loopback."""

import logging
import os
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from moto.server import ThreadedMotoServer
from small_run import config
from typer.testing import CliRunner, Result

import gradscope
from dashboards import serve
from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.data.notes import add_note
from dashboards.data.open_run import OpenRun
from dashboards.data.remote import store_address
from dashboards.pages.run import array_rows
from gradscope import cli
from gradscope.config import RunConfig
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import Run, prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store
from gradscope.store.locations import bucket
from gradscope.store.locations.location import locate

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "someone",
    "AWS_SECRET_ACCESS_KEY": "something",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


class Server:
    """An S3 server in this process; its objects survive a restart."""

    def __init__(self) -> None:
        self.port = 0
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()
        self.port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        self._server.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with pytest.MonkeyPatch.context() as patch:
        started = Server()
        for key, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": started.url}.items():
            patch.setenv(key, value)
        boto3.client("s3").create_bucket(Bucket="runs")
        yield started
        started.stop()


def objects(prefix: str) -> dict[str, bytes]:
    """Objects of the bucket below a prefix, by the rest of their key."""
    client = boto3.client("s3")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="runs", Prefix=prefix)
    keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
    return {key.removeprefix(prefix): client.get_object(Bucket="runs", Key=key)["Body"].read() for key in keys}


def small(path: str, **changes) -> RunConfig:
    return config(path, guidance={"classifier_input": ["x_t"]}, **changes)


def prepared(path: str, resume: bool = False, **sampling) -> Run:
    torch.set_num_threads(1)
    return prepare(small(path, sampling=sampling), "cpu", resume=resume)


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> xr.Dataset:
    """The same run, recorded on disk."""
    path = tmp_path_factory.mktemp("here") / "run.zarr"
    record_run(prepared(str(path)))
    return open_store(path).assign_attrs(path=str(path))


def assert_equal(there: xr.Dataset, here: xr.Dataset) -> None:
    assert there.attrs["recorded"] == here.attrs["recorded"]
    for name in here.variables:
        assert there[name].values.tobytes() == here[name].values.tobytes(), name


@pytest.mark.slow
def test_a_run_in_a_bucket_is_the_run_on_the_disk(server, here, tmp_path):
    outcome = record_run(prepare(small("s3://runs/same.zarr", recording={"durable": True}), "cpu"))  # not a disk
    assert outcome.path == "s3://runs/same.zarr"
    there = gradscope.open("s3://runs/same.zarr")
    assert_equal(there, here)
    assert there.attrs["status"] == "complete"
    copied = tmp_path / "copied.zarr"
    for key, content in objects("same.zarr/").items():
        (copied / key).parent.mkdir(parents=True, exist_ok=True)
        (copied / key).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = xr.open_zarr(copied)
    assert_equal(plain, xr.open_zarr(here.attrs["path"]))


@pytest.mark.slow
def test_existing_objects_are_kept_unless_a_store_is_to_be_overwritten(server):
    record_run(prepared("s3://runs/kept.zarr", samples=2))
    first = open_store("s3://runs/kept.zarr").attrs["run_id"]
    with pytest.raises(GradscopeError, match=r"s3://runs/kept.zarr exists; choose another path"):
        prepared("s3://runs/kept.zarr", samples=2)
    boto3.client("s3").put_object(Bucket="runs", Key="thesis/thesis.tex", Body=b"precious")
    with pytest.raises(GradscopeError, match="s3://runs/thesis exists"):
        prepared("s3://runs/thesis")
    config = prepared("s3://runs/other.zarr", samples=2).config
    with pytest.raises(GradscopeError, match="s3://runs/thesis is not a zarr store, so it is not overwritten"):
        prepare(config, "cpu", store="s3://runs/thesis", overwrite=True)
    record_run(prepare(config, "cpu", store="s3://runs/kept.zarr", overwrite=True), overwrite=True)
    assert open_store("s3://runs/kept.zarr").attrs["run_id"] != first
    assert boto3.client("s3").get_object(Bucket="runs", Key="thesis/thesis.tex")["Body"].read() == b"precious"


@pytest.mark.slow
def test_chunks_of_a_block_share_one_object_that_is_written_whole(server):
    run = prepared("s3://runs/sharded.zarr", samples=24, batch_size=12, num_inference_steps=12)
    assert run.schema.tensor_chunk == (4, 12)
    record_run(run)
    array = zarr.open_group(locate("s3://runs/sharded.zarr").zarr, mode="r")["gradient"]
    # Tensors of five samples are kept, in chunks of four. Eight do not divide the block, so an object holds all twelve.
    assert (array.chunks[4:6], array.shards[4:6]) == ((4, 12), (12, 12))
    cells = 2
    assert len(objects("sharded.zarr/gradient/")) == 1 + cells
    ds = open_store("s3://runs/sharded.zarr")
    assert (ds["written"].isel(sample=slice(5)) == 3).all()
    assert np.isfinite(ds["gradient"].isel(sample=slice(5)).values).all()
    norm = np.linalg.norm(ds["gradient"].isel(sample=slice(5)).values.reshape(1, 1, 2, 1, 5, 12, -1), axis=-1)
    np.testing.assert_allclose(norm, ds["gradient_norm"].isel(sample=slice(5)).values, rtol=1e-5)


@pytest.mark.slow
def test_a_lost_connection_is_retried(server, here):
    run, steps = prepared("s3://runs/waited.zarr"), iter(range(10**6))

    def on_step(cell, step) -> None:
        if next(steps) == 40:
            server.stop()
            threading.Timer(3, server.start).start()

    record_run(run, on_step=on_step)
    assert_equal(open_store("s3://runs/waited.zarr"), here)


@pytest.mark.slow
def test_a_connection_that_stays_lost_is_reported_and_the_run_resumes_later(server, here, monkeypatch):
    monkeypatch.setattr(bucket, "RETRY_SECONDS", 2)
    run, steps = prepared("s3://runs/lost.zarr"), iter(range(10**6))
    try:
        with pytest.raises(GradscopeError, match=r"s3://runs/lost.zarr could not be written: .*error sending request"):
            record_run(run, on_step=lambda cell, step: next(steps) == 40 and server.stop())
        with pytest.raises(GradscopeError, match=r"s3://runs/lost.zarr: "):
            open_store("s3://runs/lost.zarr")
    finally:
        server.stop()  # the run may fail before the writer does
        server.start()
    written = open_store("s3://runs/lost.zarr")["written"].values
    assert 0 < (written > 0).mean() < 1
    record_run(prepared("s3://runs/lost.zarr", resume=True), resume=True)
    assert_equal(open_store("s3://runs/lost.zarr"), here)


@pytest.mark.slow
def test_the_commands_take_urls(server, here, tmp_path):
    def run(*arguments: str) -> Result:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(cli.app, arguments)
        assert result.exit_code == 0, result.output
        return result

    url, recording = "s3://runs/recorded.zarr", tmp_path / "run.json"
    recording.write_text(small(url, sampling={"samples": 4}).model_dump_json())  # JSON is YAML
    assert f"recorded {url}" in run("record", "--config", str(recording), "--device", "cpu").output
    assert_equal(open_store(url).drop_vars(["own_prediction"]), here.isel(sample=slice(4)))
    for command in (["info"], ["report", "--json"], ["verify"]):
        run(*command, url)


@pytest.mark.slow
def test_the_dashboard_shows_a_store_in_a_bucket_as_that_on_the_disk(server, here):
    url = "s3://runs/shown.zarr"
    record_run(prepared(url))
    there = Library([store_address(url)]).run(None)
    local = Library([Path(here.attrs["path"])]).run(None)
    assert isinstance(there, OpenRun)
    assert (there.path.name, str(there.path)) == ("shown.zarr", url)
    for name in ("gradient_norm", "written"):
        np.testing.assert_array_equal(there.scalars(name)[name].values, local.scalars(name)[name].values)
    clients = [app_of(Library([run.path]), "/").server.test_client() for run in (there, local)]
    pictures = []
    for run, client in zip((there, local), clients, strict=True):
        answers = [
            client.get(f"/frames/{run.key}/0/0.png?cells=1"),
            client.get(f"/thumbnails/{run.key}/0.png?samples=0-3"),
            client.get(f"/tensors/{run.key}/0/1/{int(run.ds['timestep'].values[2])}/gradient.npy"),
        ]
        assert [answer.status_code for answer in answers] == [200] * 3
        pictures.append([answer.data for answer in answers])
        assert {row["name"] for row in array_rows(run) if row["bytes"]} >= {"gradient", "gradient_norm", "written"}
    assert pictures[0] == pictures[1]
    assert not there.refresh()
    boto3.client("s3").delete_object(Bucket="runs", Key="shown.zarr/zarr.json")
    assert not there.refresh()  # what was read is shown
    with pytest.raises(GradscopeError, match="lies in an object store"):
        add_note(there.path, "run?store=a", "x")


def test_the_dashboard_does_not_start_without_its_store(server):
    with pytest.raises(GradscopeError, match="s3://runs/nothing.zarr does not exist"):
        serve(["s3://runs/nothing.zarr"], "127.0.0.1", 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "given", "keys", "others"),
    [
        ("s3://runs/a.zarr", {}, "AWS_ACCESS_KEY_ID", ("GOOGLE", "AZURE", "gcloud")),
        ("gs://runs/a.zarr", {}, "GOOGLE_SERVICE_ACCOUNT", ("AWS", "AZURE")),
        ("az://runs/a.zarr", {}, "AZURE_STORAGE_ACCOUNT_NAME", ("AWS", "GOOGLE")),
        ("az://runs/a.zarr", {"AZURE_STORAGE_ACCOUNT_NAME": "mine"}, "AZURE_STORAGE_ACCOUNT_KEY", ("AWS", "GOOGLE")),
        ("gs://runs/a.zarr", {"GOOGLE_SERVICE_ACCOUNT": "absent.json"}, "GOOGLE_SERVICE_ACCOUNT", ("AWS", "AZURE")),
    ],
)
def test_missing_credentials_are_reported_within_seconds_by_the_providers_names(monkeypatch, url, given, keys, others):
    for name in [name for name in os.environ if name.startswith(("AWS_", "AZURE_", "GOOGLE_"))]:
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    start = time.monotonic()
    with pytest.raises(GradscopeError) as refused:
        open_store(url)
    assert time.monotonic() - start < 15
    text = str(refused.value)
    assert text.startswith(url)
    assert keys in text.partition("credentials come from the environment: ")[2]
    assert not any(word in text for word in others)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gopher://runs/a.zarr", "gopher://runs/a.zarr: "),
        ("s3://absent/a.zarr", "s3://absent/a.zarr: .*404 Not Found"),
    ],
)
def test_urls_that_name_nothing_are_refused(server, url, message):
    with pytest.raises(GradscopeError, match=message):
        prepared(url)
