"""Steps that a method repeats, in a store: recorded along `repeat`, counted once, resumed, and read by every tool."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDIMScheduler
from rich.console import Console
from small_run import SETTINGS, assert_same_recording, config

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler, methods
from gradscope.analysis import selections
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import Evaluators, Settings
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import prepare
from gradscope.recording.progress_bar import count, recording_progress
from gradscope.recording.run import record_run
from gradscope.store.dims import over
from probes import Cosine, Norm, Tensor

METHOD = {"freedom": {"recurrence": 3, "between": [300, 700]}}
CONFIG = {
    "guidance": {"method": METHOD, "classifier_input": ["x0"]},
    "stabilizers": {"ema": {"beta": 0.5}},
    "sampling": {"num_inference_steps": 5, "samples": 4, "batch_size": 2, "scheduler": "ddim"},
    "probes": [*SETTINGS["probes"], "x_t"],
    "recording": {"tensor_samples": 4},
}
REPEATED = [1, 1, 3, 3, 1]
"""Repetitions at the timesteps 800, 600, 400, 200 and 0."""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores") / "repeated.zarr"
    run = prepare(small(path))
    seen = []
    record_run(run, on_step=lambda cell, step: seen.append((step.timestep, step.repeat)))
    judge = load_judge(run)
    settings = Settings(judge=run.config.judge, evaluation=run.config.evaluation)
    evaluate_store(str(path), Evaluators(settings, run.classifiers, judge), run.device)
    return SimpleNamespace(path=path, run=run, seen=seen)


def small(path):
    made = config(path, **{key: value for key, value in CONFIG.items() if key not in ("stabilizers", "recording")})
    content = made.model_dump(mode="json") | {"stabilizers": CONFIG["stabilizers"]}
    content["recording"] |= CONFIG["recording"]
    return type(made).model_validate(content)


def repetitions(ds):
    """Number of recorded repetitions by timestep; every sample has as many."""
    counts = (ds["written"] > 0).sum("repeat").squeeze()
    assert bool((counts == counts.isel(sample=0)).all())
    return counts.isel(sample=0).values.tolist()


@pytest.mark.slow
def test_every_repetition_is_recorded_and_what_is_none_is_not_marked(store):
    ds = xr.open_zarr(store.path)
    assert ds.sizes["repeat"] == 3
    assert ds["repeat"].values.tolist() == [0, 1, 2]
    timesteps = ds["timestep"].values.tolist()
    expected = [3 if 300 <= t < 700 else 1 for t in timesteps]
    assert repetitions(ds) == expected
    assert max(expected) == 3
    assert min(expected) == 1
    blocks = [(t, k) for t, n in zip(timesteps, expected, strict=True) for k in range(n)]
    assert store.seen == blocks * 2
    assert np.isnan(ds["gradient_norm"].where(ds["written"] == 0)).all()
    assert json.loads(ds.attrs["configuration"])["guidance"]["method"] == METHOD


def test_the_values_are_those_of_the_samplers_steps(store):
    ds = xr.open_zarr(store.path).squeeze()
    with torch.random.fork_rng():
        sampler = store.run.sampler((0, 0, 0, 0))
        steps = list(sampler.steps(store.run.grid.label[:2].tolist(), 5, 0))
    names = list(ds["timestep"].values)
    for step in steps:
        at = ds.isel(timestep=names.index(step.timestep), repeat=step.repeat, sample=slice(0, 2))
        order = ("sample", "channel", "height", "width")
        for name in ("x_t", "gradient", "update"):
            expected = getattr(step, name).float().numpy()
            np.testing.assert_allclose(at[name].transpose(*order), expected, rtol=1e-4, atol=1e-6)
        norm = step.gradient.flatten(1).norm(dim=1)
        np.testing.assert_allclose(at["gradient_norm"], norm, rtol=1e-4)


def test_a_probe_with_a_state_goes_from_repetition_to_repetition(store):
    """The cosine is that with the gradient before it in time, which may be of the same timestep."""
    ds, before = xr.open_zarr(store.path).squeeze(), None
    for t, repeat in store.seen[: len(store.seen) // 2]:
        at = ds.sel(timestep=t, repeat=repeat).isel(sample=0)
        g = at["gradient"].values.ravel().astype(float)
        if before is not None:
            expected = g @ before / np.linalg.norm(g) / np.linalg.norm(before)
            assert float(at["gradient_cosine"]) == pytest.approx(expected, rel=1e-3, abs=1e-5)
        before = g


def test_analyses_read_the_last_repetition(store):
    ds = gradscope.open(store.path)
    last = selections.restore_dims(ds)
    counts = [3 if 300 <= t < 700 else 1 for t in ds["timestep"].values]
    expected = np.stack(
        [ds["gradient_norm"].isel(timestep=i, repeat=n - 1).values for i, n in enumerate(counts)], axis=-1
    )
    np.testing.assert_array_equal(last["gradient_norm"].transpose(..., "timestep"), expected)
    assert "repeat" not in last["gradient_norm"].dims


@pytest.mark.slow
def test_every_tool_reads_the_store(store):
    ds = gradscope.open(store.path)
    assert "severity" in gradscope.signatures(ds)
    verification = gradscope.verify(store.path)
    assert verification.sound, verification.findings
    assert "values of repeated timesteps are not recomputed" in verification.remarks
    assert "judge_prediction" in ds
    assert float(gradscope.summary(ds)["judge_accuracy"].squeeze()) == float(
        (ds["judge_prediction"] == ds["label"]).mean()
    )
    cells = gradscope.report(ds).cells
    assert cells["stabilizer"].tolist() == ["ema"]
    mean = float(selections.restore_dims(ds)["gradient_cosine"].mean())
    assert float(cells["gradient_cosine"].iloc[0]) == pytest.approx(mean, rel=1e-2)


def test_a_damaged_chunk_is_found(store, tmp_path):
    import shutil

    copy = tmp_path / "copy.zarr"
    shutil.copytree(store.path, copy)
    chunk = sorted(path for path in (copy / "gradient").rglob("*") if path.is_file() and path.name != "zarr.json")[0]
    content = bytearray(chunk.read_bytes())
    content[len(content) // 2] ^= 1
    chunk.write_bytes(bytes(content))
    assert not gradscope.verify(copy).sound


@pytest.mark.slow
def test_an_interrupted_run_goes_on_to_the_same_bytes(store, tmp_path):
    path, left = tmp_path / "again.zarr", [13]

    def stop(cell, step):
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record_run(prepare(small(path)), on_step=stop)
    partial = gradscope.open(path)["written"].max("repeat").squeeze()
    assert 0 < int((partial > 0).sum()) < partial.size
    record_run(prepare(small(path), resume=True), resume=True)
    assert_same_recording(path, store.path)


def recorded(path, sampler, **options):
    with gradscope.record(sampler, path, [Tensor("gradient"), Norm("gradient"), Cosine("gradient")], **options) as made:
        made.sample([0, 1, 2], 4, seed=1, batch_size=2)
    return gradscope.open(path)


def guided(unet, classifier, method):
    guidance = ClassifierGuidance(classifier, "x0", 0.3, method=method)
    return GuidedSampler(unet, DDIMScheduler(), guidance)


def test_recording_from_python_counts_a_repeated_step_once(unet, classifier, tmp_path):
    told = []
    ds = recorded(
        tmp_path / "a.zarr",
        guided(unet, classifier, methods.Universal(recurrence=2, steps=1)),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(k, 8) for k in range(1, 9)]
    assert ds.sizes["repeat"] == 2
    assert repetitions(ds) == [2] * 4


def test_without_repeated_steps_there_is_no_dimension(unet, classifier, tmp_path):
    ds = recorded(tmp_path / "a.zarr", guided(unet, classifier, methods.FreeDoM()))
    assert "repeat" not in ds.dims


def test_a_progress_bar_ends_at_its_total(store):
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=False)
    with recording_progress(console, store.run.grid, 0) as advance:
        for timestep, repeat in store.seen:
            count(advance, (0, 0, 0, 0), SimpleNamespace(timestep=timestep, repeat=repeat))
    lines = [line for line in file.getvalue().splitlines() if " steps: " in line]
    assert len(lines) == 1
    assert lines[0].startswith("10/10 steps: ")


def test_the_dashboards_data_are_those_of_the_last_repetition(store):
    from dashboards.data.open_run import OpenRun

    run, last = OpenRun(store.path), selections.restore_dims(gradscope.open(store.path))
    order = (*over(run.ds), "channel", "height", "width")
    for name in ("gradient_norm", "gradient_cosine"):
        np.testing.assert_array_equal(run.values(name), last[name].transpose(*order[:6]).values)
    written = run.scalars("gradient_norm")["written"]
    assert written.dims == order[:6]
    assert bool((written == 3).all())
    chunks, expected = run.chunks("gradient"), last["gradient"].transpose(*order).values
    np.testing.assert_array_equal(chunks.whole(), expected)
    for sample, step in [(0, 0), (3, 2), (1, 4)]:
        at = (0, 0, 0, 0, sample, step)
        found = chunks.around(at)[step % chunks.size[5]]
        np.testing.assert_array_equal(found, expected[at])
    assert all(chunks.stamp(index) for index in chunks)
    assert len(run.findings()) == len(gradscope.signatures(gradscope.open(store.path)))


@pytest.mark.slow
def test_the_command_records_and_reads_such_a_run(tmp_path, monkeypatch, capsys):
    """Also as an option: --set guidance.method={...}. The bar's lines end at the total."""
    import sys

    from ruamel.yaml import YAML

    from gradscope import cli

    monkeypatch.chdir(tmp_path)
    content = small(tmp_path / "run.zarr").model_dump(mode="json")
    content["guidance"]["method"] = "classifier"
    YAML().dump(content, tmp_path / "run.yaml")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["gradscope", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    method = "guidance.method={tfg: {recurrence: 2, mu: 0.1, steps: 1}}"
    status, out, err = run("record", "--config", "run.yaml", "--device", "cpu", "--set", method)
    assert status == 0, err
    assert out.count("10/10 steps: ") == 1
    assert "11/10" not in out
    for command in ("report", "info", "verify", "evaluate"):
        status, out, err = run(command, "run.zarr")
        assert status == 0, (command, err)
    assert gradscope.open("run.zarr").sizes["repeat"] == 2
    status, _, err = run("record", "--config", "run.yaml", "--overwrite", "--set", "guidance.method={tfg: {rhoo: 2}}")
    assert status == 2
    assert err.startswith("gradscope: guidance.method.tfg.rhoo: tfg has no such setting; did you mean 'rho'?")
