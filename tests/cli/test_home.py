"""A `~` at the beginning of a path is the user's folder, wherever a path may stand."""

import json
from pathlib import Path

import pytest
import xarray as xr
from small_run import SETTINGS
from typer.testing import CliRunner
from users_source import USERS

from gradscope.cli.commands import app
from gradscope.config import (
    AuditConfig,
    DataConfig,
    Inception,
    RunConfig,
    TimmClassifier,
    TrainClassifierConfig,
    TrainDenoiserConfig,
    check,
    load,
)
from gradscope.recording.prepare import moved
from gradscope.store import open_store
from gradscope.store.locations.location import locate


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    """The user's folder, which is not the current one."""
    folder = tmp_path / "home"
    folder.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.syspath_prepend(tmp_path / "here")
    return folder


STEPS = {"steps": 1}
DATA = {"name": "image_folder", "path": "~/x"}
TIMM = {"timm": "resnet18", "num_classes": 4, "checkpoint": "~/x"}
RUN = {"denoiser": "~/x", "classifiers": {"a": "~/x", "b": TIMM}, "judge": "~/x", "guidance": {"guidance_scale": [1.0]}}
CONFIGURATIONS = {
    "run": (RunConfig, RUN | {"recording": {"path": "~/x"}, "evaluation": {"extractor": "~/x", "data": DATA}}),
    "run, judge and extractor of timm": (
        RunConfig,
        RUN | {"recording": {"path": "~/x"}, "judge": TIMM, "evaluation": {"extractor": TIMM}},
    ),
    "run, Inception": (
        RunConfig,
        RUN | {"recording": {"path": "~/x"}, "evaluation": {"extractor": {"inception": "~/x"}}},
    ),
    "audit": (AuditConfig, {"classifiers": {"a": "~/x", "b": TIMM}, "denoiser": "~/x", "data": DATA}),
    "train ddpm": (
        TrainDenoiserConfig,
        {
            "data": DATA,
            "unet": {},
            "training": STEPS,
            "output": "~/x",
            "evaluation": {"judge": "~/x", "extractor": "~/x"},
        },
    ),
    "train classifier": (TrainClassifierConfig, {"data": DATA, "timm": "a", "training": STEPS, "output": "~/x"}),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_in_every_configuration(home, name):
    model, content = CONFIGURATIONS[name]
    given, got = json.dumps(content), check(model, content, "test").model_dump_json()
    assert "~" not in got
    assert got.count(f"{home}/x") == given.count("~/x")


def test_in_python(home):
    assert TimmClassifier(timm="a", num_classes=1, checkpoint="~/x").checkpoint == f"{home}/x"
    assert DataConfig(name="image_folder", path="~/x").path == f"{home}/x"
    assert Inception(inception="~/x").inception == f"{home}/x"
    assert str(locate("~/x.zarr")) == str(locate(Path("~/x.zarr"))) == f"{home}/x.zarr"


def test_what_is_no_home_stays():
    for name in ("zoo:a/b", "user/hub", "a.b:c", "~nobody-of-this-name/x", "s3://bucket/~/x", "a/~/x"):
        config = check(RunConfig, RUN | {"denoiser": name, "recording": {"path": name}}, "test")
        assert (config.denoiser, config.recording.path) == (name, name)


def test_another_store_than_the_configurations(home):
    config = check(RunConfig, SETTINGS, "test")
    assert moved(config, "~/b.zarr").recording.path == f"{home}/b.zarr"


def run(*arguments: str) -> None:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.slow
def test_on_the_command_line(home):
    """A shell leaves `~` as it is after `=`."""
    Path("users_models_at_home.py").write_text(USERS)
    (home / "run.yaml").write_text(
        "denoiser: users_models_at_home:denoiser\nclassifiers: {a: users_models_at_home:linear}\n"
        "guidance: {guidance_scale: [0.4]}\nsampling: {num_inference_steps: 2, samples: 2}\n"
        "recording: {path: ~/a.zarr}\n"
    )
    (home / "audit.yaml").write_text(
        "classifiers: {a: users_models_at_home:linear}\ndata: {name: sportballs, size: 8}\ntimesteps: 2\nsamples: 4\n"
    )
    run("record", "--config=~/run.yaml", "--device=cpu")
    run("record", "--config=~/run.yaml", "--device=cpu", "--store=~/b.zarr")
    run("report", "~/b.zarr", "--html=~/b.html")
    run("audit", "--config=~/audit.yaml", "--out=~/audit.zarr")
    assert {"a.zarr", "b.zarr", "b.html", "audit.zarr"} <= {path.name for path in home.iterdir()}
    assert {path.name for path in Path().iterdir()} <= {"users_models_at_home.py", "__pycache__"}
    assert open_store("~/b.zarr").sizes["sample"] == xr.open_zarr(home / "b.zarr").sizes["sample"] == 2
    assert load(RunConfig, "~/run.yaml").recording.path == f"{home}/a.zarr"
