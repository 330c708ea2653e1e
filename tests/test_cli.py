import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from ruamel.yaml import YAML

from gradscope import cli
from gradscope.evaluation import cards as evaluation
from gradscope.sampler import GuidedSampler

USERS = """
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn

def denoiser(**options):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "UpBlock2D")}
    settings = {"sample_size": 8, "block_out_channels": (8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return UNet2DModel(**settings, **blocks, **options), DDPMScheduler()

def conditional():
    return denoiser(num_class_embeds=4)

def linear(size=8, channels=3, classes=4, seed=1):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * size**2, classes))

def judge():
    return linear(seed=2)

def large():
    return linear(size=16)

def grey():
    return linear(channels=1)

def three():
    return linear(classes=3)

class Broken(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :4] * float("nan")
"""
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
    torch.set_flush_denormal(False)


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
    ("stabilizers.adam={betas: [0.9, 1]}", "stabilizers.adam: betas must be two numbers in [0, 1), got [0.9, 1.0]"),
    ("stabilizers.adam={eps: small}", "stabilizers.adam.eps: must be a valid number"),
    ("probes=[norm]", "probes: unknown probe 'norm'; did you mean 'norms'? one of: gradient, update"),
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
    (["--config", "run.yaml", "--device", "cuda:99"], "--device: cuda:99 is not there; CUDA devices seen: "),
    (["--config", "run.yaml", "--device", "gpu"], "--device: got 'gpu'; one of: auto, cpu, cuda, cuda:INDEX"),
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
    message = "--device: cuda is not there; CUDA devices seen: 0. `--device cpu` works anywhere"
    refused(gradscope, here, message, "record", "--config", "run.yaml", "--device", "cuda")


def test_an_existing_store_is_kept(here, gradscope):
    (here / "mine.zarr").mkdir()
    (here / "mine.zarr" / "zarr.json").write_text("precious")
    message = "recording.path: mine.zarr exists; choose another path (--store), or overwrite it (--overwrite)"
    refused(gradscope, here, message, "record", "--config", "run.yaml")
    refused(
        gradscope, here, message, "record", "--config", "run.yaml", "--set", "recording.path=x", "--store", "mine.zarr"
    )


def test_what_is_no_store_is_never_overwritten(here, gradscope):
    (here / "mine.zarr").mkdir()
    (here / "mine.zarr" / "thesis.tex").write_text("precious")
    message = "recording.path: mine.zarr is not a zarr store, it is not overwritten"
    refused(gradscope, here, message, "record", "--config", "run.yaml", "--overwrite")


def test_a_store_that_does_not_fit_on_the_disk(here, gradscope, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=0, used=0, free=1000))
    before = contents(here)
    status, _, err = gradscope("record", "--config", "run.yaml", "--device", "cpu")
    assert status == 2
    assert "gradscope: recording.path: the store needs 0.00 GB and " in err
    assert "has 0.00 GB free; lower recording.tensor_samples, raise recording.tensor_every, or choose another" in err
    assert contents(here) == before


@pytest.mark.parametrize("command", ["info", "report"])
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
    status, reported, _ = gradscope("report", "other.zarr")
    assert status == 0
    assert rows(reported) == table

    status, told, _ = gradscope("info", "other.zarr")
    assert status == 0
    for text in ("written: 100.0%", "status: complete", "gradient_norm", "judge_accuracy", ds.attrs["run_id"]):
        assert text in told
    configuration = json.loads(ds.attrs["configuration"])
    assert configuration["recording"]["path"] == "other.zarr"
    assert configuration["denoiser"] == "users_models:denoiser"


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
    assert "gradscope: interrupted; what was recorded so far is in mine.zarr, see `gradscope info mine.zarr`" in err
    written = float((xr.open_zarr("mine.zarr").written > 0).mean())
    assert 0 < written < 1
    status, out, _ = gradscope("report", "mine.zarr")
    assert status == 0
    assert f"mine.zarr is interrupted: {written:.1%} of it is written" in " ".join(out.split())


def test_progress_is_told_where_there_is_no_terminal(here, gradscope):
    _, out, _ = gradscope("record", "--config", "run.yaml", "--device", "cpu")
    told = [line for line in out.splitlines() if " steps: mine / x_t / " in line]
    done, total = zip(*(map(int, line.split(" steps")[0].split("/")) for line in told), strict=True)
    assert len(told) == 4
    assert [4 * k for k in done] == [total[0] * cell for cell in (1, 2, 3, 4)]


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


def test_gradients_that_are_not_finite_are_told_of_and_end_the_run_where_wanted(here, gradscope):
    broken = ["record", "--config", "run.yaml", "--device", "cpu", "--set", "classifiers.mine=users_models:Broken"]
    status, out, _ = gradscope(*broken)
    assert status == 0
    assert (
        "gradient not finite at timestep 666, sample 0, classifier mine, classifier_input x_t, stabilizer none" in out
    )
    assert "more; see finite_fraction in the store" in out
    status, _, err = gradscope(*broken, "--overwrite", "--stop-on-nonfinite")
    assert status == 3
    assert err.startswith("gradscope: gradient not finite at timestep 666, sample 0, classifier mine, ")
    assert xr.open_zarr("mine.zarr").attrs["status"] == "interrupted"


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


def test_a_training_whose_evaluation_cannot_be_made_does_not_start(here, gradscope):
    judges = {"judge": "zoo:sportballs32/jury", "extractor": "zoo:sportballs32/jury", "samples": 10}
    YAML().dump(TRAINING | {"unet": {}, "evaluation": judges}, here / "train.yaml")
    message = "evaluation.judge: no 'zoo:sportballs32/jury' in the zoo"
    refused(gradscope, here, message, "train", "ddpm", "--config", "train.yaml", "--device", "cpu")


def test_version_and_help(gradscope):
    status, out, _ = gradscope("--version")
    assert (status, out.split()[0]) == (0, "gradscope")
    assert out.split()[1][0].isdigit()
    for command in ([], ["record"]):
        status, out, _ = gradscope(*command, "--help")
        assert status == 0
        assert "gradscope record --config both.yaml" in out


def test_help_is_quick_because_it_loads_no_torch():
    code = "import sys, gradscope.cli; print(sorted({'torch', 'xarray', 'pydantic', 'diffusers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
