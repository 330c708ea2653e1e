"""Resuming a run: blocks that are kept or recorded again, and differences that are refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier
from small_run import SETTINGS, assert_same_recording, config, recorded_bytes
from sound_store import edit_json

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler, stabilizers
from gradscope.cli import record_workflow as recording_command
from gradscope.cli.record_workflow import Request
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store import open_store
from gradscope.store.locations.location import locate
from gradscope.store.progress import finished, unfinished
from gradscope.store.replacement import JOURNAL
from gradscope.store.untrusted import checksum
from gradscope.verification.verify import verify
from probes import Cosine, Norm, Tensor

PROBES = ["gradient", "update", "norms", "cosines"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run.zarr"
    torch.set_num_threads(1)
    record_run(prepare(config(path, judge="none", probes=PROBES), "cpu"))
    return path


@pytest.fixture
def store(whole, tmp_path) -> Path:
    """A copy of the run, with the third block of the second cell and all of the last cell unmarked."""
    path = tmp_path / "run.zarr"
    shutil.copytree(whole, path)
    marker = zarr.open_group(path, mode="r+")["written"]
    marker[0, 0, 1, 0, 4:6, 10:] = 0
    marker[0, 1, 1, 0] = 0
    return path


def request(resume: Path, **options) -> Request:
    nothing = dict.fromkeys(Request.__dataclass_fields__)
    return Request(**nothing | {"resume": str(resume), "overrides": (), "device": "cpu"} | options)


@pytest.mark.slow
def test_only_blocks_that_are_not_finished_are_recorded_again(store, whole):
    assert unfinished(locate(store)) == [((0, 0, 1, 0), 2), *(((0, 1, 1, 0), block) for block in range(3))]
    assert finished(locate(store)).sum() == 8
    kept = {file: file.stat().st_mtime_ns for file in store.rglob("c.*")}
    recording_command.run(request(store))
    again = {str(file.relative_to(store)) for file, time in kept.items() if file.stat().st_mtime_ns != time}
    blocks = ("c.0.0.1.0.2.", "c.0.1.1.0.0.", "c.0.1.1.0.1.", "c.0.1.1.0.2.")
    assert again
    assert all(name.split("/")[1].startswith(blocks) for name in again)
    assert {name.split("/")[0] for name in again} == set(open_store(store).attrs["recorded"])
    assert_same_recording(store, whole)


@pytest.mark.slow
def test_damage_in_an_unmarked_block_is_repaired(store, whole):
    for file in store.glob("*/c.0.1.1.0.*"):
        file.write_bytes(file.read_bytes()[:-7])
    marker = store / "written"
    shutil.copy(whole / "written" / "c.0.1.1.0.0.0", marker)
    for file in marker.glob("c.0.1.1.0.*"):
        file.unlink()  # as after the loss of files
    recording_command.run(request(store))
    assert_same_recording(store, whole)


@pytest.mark.slow
def test_the_remedy_of_verify_repairs_a_damaged_block(store, whole):
    next(store.glob("gradient/c.0.0.0.0.1.*")).unlink()
    (finding,) = (finding for finding in verify(store).findings if finding.array == "gradient")
    assert finding.remedy == (
        f"remove written/c.0.0.0.0.1.*; then `gradscope record --resume {store}` records this block again"
    )
    for file in store.glob("written/c.0.0.0.0.1.*"):
        file.unlink()
    recording_command.run(request(store))
    assert_same_recording(store, whole)


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["status", "recorded"])
def test_an_older_store_without_some_attributes_is_resumed(store, whole, lost):
    """Stores of earlier versions lack these attributes."""
    document = json.loads((store / "zarr.json").read_text())
    for name in (lost, checksum.KEY):
        del document["attributes"][name]
    document["attributes"]["schema_version"] = 2
    (store / "zarr.json").write_text(json.dumps(document))
    recording_command.run(request(store))
    assert_same_recording(store, whole)
    assert open_store(store).attrs["status"] == "complete"


def test_differences_are_refused_by_name(store, tmp_path):
    before = recorded_bytes(store)
    settings = json.loads(json.dumps(SETTINGS)) | {"judge": "none", "probes": PROBES}
    settings["sampling"]["seed"] = 5
    settings["stabilizers"]["adam"] = {"eps": 1e-4}
    settings["recording"]["path"] = "elsewhere.zarr"
    (tmp_path / "other.yaml").write_text(json.dumps(settings))
    with pytest.raises(GradscopeError) as refused:
        recording_command.run(request(store, config=str(tmp_path / "other.yaml")))
    assert str(refused.value) == (
        f"{store}: cannot resume: sampling.seed was 0, and is 5; stabilizers.adam.eps was absent, and is 0.0001. "
        "Record this run into another store"
    )
    with pytest.raises(GradscopeError, match="sampling.samples was 6, and is 8. Record"):
        recording_command.run(request(store, overrides=("sampling.samples=8",)))
    for options in ({"store": "other.zarr"}, {"overwrite": True}):
        with pytest.raises(GradscopeError, match="--resume: .*leave out --store and --overwrite"):
            recording_command.run(request(store, **options))
    assert recorded_bytes(store) == before


def test_other_weights_are_refused_by_name(store, monkeypatch):
    before = recorded_bytes(store)
    monkeypatch.setattr("small_run.LinearClassifier", lambda gain: LinearClassifier(gain=gain + 0.001))
    with pytest.raises(GradscopeError, match="the weights of classifiers.robust are not those it was begun with"):
        recording_command.run(request(store))
    assert recorded_bytes(store) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "v_prediction"}, "scheduler.prediction_type was epsilon, and is v_prediction"),
        ({"clip_sample": False}, "scheduler.clip_sample was True, and is False"),
        ({"variance_type": "fixed_large"}, "scheduler.variance_type was fixed_small, and is fixed_large"),
        ({"beta_end": 0.03}, "scheduler.beta_end was 0.02, and is 0.03"),
    ],
)
def test_other_settings_of_the_scheduler_are_refused_by_name(store, sampler, tmp_path, monkeypatch, change, message):
    """The configuration has only the path of the scheduler; the settings at this path may have changed."""
    before = recorded_bytes(store)
    other = DDPMScheduler(**change)
    monkeypatch.setattr("small_run.DDPMScheduler", lambda: other)
    with pytest.raises(GradscopeError, match=message):
        recording_command.run(request(store))
    assert recorded_bytes(store) == before
    with gradscope.record(sampler, tmp_path / "mine.zarr", [Norm("gradient")]) as recorder:
        recorder.sample([0], num_inference_steps=3)
    sampler.scheduler = other
    with (
        pytest.raises(GradscopeError, match=message),
        gradscope.record(sampler, tmp_path / "mine.zarr", [Norm("gradient")], resume=True) as recorder,
    ):
        recorder.sample([0], num_inference_steps=3)


def test_a_store_of_other_arrays_is_refused(store):
    del zarr.open_group(store, mode="r+", use_consolidated=False)["update"]
    edit_json(store / "zarr.json", lambda root: root["attributes"]["recorded"].remove("update"))
    with pytest.raises(GradscopeError, match=r"cannot resume: these variables differ .*\['update'\]"):
        recording_command.run(request(store))


def test_only_stores_are_resumed(tmp_path):
    with pytest.raises(GradscopeError, match="absent.zarr: nothing is there") as refused:
        recording_command.run(request(tmp_path / "it is absent.zarr"))
    begin = f"begin with: gradscope record --store '{tmp_path}/it is absent.zarr' --config ..."
    assert refused.value.for_command().endswith(begin)
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        recording_command.run(request(tmp_path))


@pytest.mark.slow
def test_with_a_complete_store_nothing_is_loaded(whole, tmp_path, monkeypatch, capsys):
    store = tmp_path / "run.zarr"
    shutil.copytree(whole, store)
    recording_command.run(request(store))  # it is not evaluated
    assert "evaluation" in open_store(store).attrs
    before = {file: file.read_bytes() for file in store.rglob("*") if file.is_file()}
    monkeypatch.setattr(recording_command, "prepare", lambda *rest, **options: pytest.fail("loads its models"))
    capsys.readouterr()
    recording_command.run(request(store))
    assert "is complete, nothing is left to record" in " ".join(capsys.readouterr().out.split())
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before
    (store / JOURNAL).write_text(json.dumps(["own_prediction"]))  # killed right after it was complete
    (store / "own_prediction" / "old").write_bytes(b"an old chunk")
    recording_command.run(request(store))
    assert {file: file.read_bytes() for file in store.rglob("*") if file.is_file()} == before


@pytest.fixture
def sampler() -> GuidedSampler:
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=SIZE, **UNET)
    guidance = ClassifierGuidance(LinearClassifier(gain=3.0), guidance_scale=0.4)
    return GuidedSampler(unet, DDPMScheduler(), guidance, stabilizers.Adam())


@pytest.mark.slow
def test_a_recording_from_python_is_resumed(sampler, tmp_path):
    probes, labels = [Tensor("gradient"), Norm("gradient"), Cosine("update")], [0, 1, 2, 3, 0]

    def sample(path: Path, resume: bool = False, seed: int = 0) -> torch.Tensor:
        with gradscope.record(sampler, path, probes, classifier_name="mine", resume=resume) as recorder:
            return recorder.sample(labels, num_inference_steps=6, seed=seed, batch_size=2)

    images = sample(tmp_path / "whole.zarr")

    def stop(step) -> None:
        if step.step == 3 and step.label[0] == 2:
            raise KeyboardInterrupt

    with sampler.register_step_hook(stop), pytest.raises(KeyboardInterrupt) as stopped:
        sample(tmp_path / "run.zarr")
    assert stopped.value.__notes__ == [
        f"1 of 3 blocks are recorded in {tmp_path / 'run.zarr'}; continue with resume=True"
    ]
    with pytest.raises(GradscopeError, match="it was recorded from Python; resume it with gradscope.record"):
        recording_command.run(request(tmp_path / "run.zarr"))
    with pytest.raises(GradscopeError, match="cannot resume: the coordinate seed has other values in the store"):
        sample(tmp_path / "run.zarr", resume=True, seed=1)
    again = sample(tmp_path / "run.zarr", resume=True)
    assert again.numpy().tobytes() == images.numpy().tobytes()
    assert recorded_bytes(tmp_path / "run.zarr") == recorded_bytes(tmp_path / "whole.zarr")
    np.testing.assert_array_equal(open_store(tmp_path / "run.zarr")["image"].values.squeeze(), images.numpy())
    sampler.stabilizer = stabilizers.Adam(eps=1e-4)
    with pytest.raises(GradscopeError, match=r"stabilizer was Adam\(.*1e-08.* and is Adam\(.*0.0001"):
        sample(tmp_path / "run.zarr", resume=True)
