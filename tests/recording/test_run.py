"""Runs by configuration, with a user's own small models."""

import importlib
import json
import sys
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import gradscope
from gradscope.config import RunConfig, check
from gradscope.errors import GradscopeError
from gradscope.models.device import set_device
from gradscope.recording.codec import choose_codec
from gradscope.recording.load_probes import load_probes
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import configuration_of
from gradscope.stabilizers import Adam, Identity
from gradscope.store import CELL_DIMS
from gradscope.store.config_hash import config_hash

MODELS = """
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import LinearClassifier
from probes import Probe, Variable


def denoiser():
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=8, block_out_channels=(8, 8), down_block_types=("DownBlock2D", "DownBlock2D"),
                       up_block_types=("UpBlock2D", "UpBlock2D"), layers_per_block=1, norm_num_groups=4)
    return unet, DDPMScheduler()


def robust():
    torch.manual_seed(1)
    return LinearClassifier(gain=2.0)


def non_robust():
    torch.manual_seed(2)
    return LinearClassifier(gain=3.0)


def wide():
    return LinearClassifier(size=16)


class Peak(Probe):
    variables = (Variable("peak", "largest magnitude", "max|g|"),)

    def measure(self, step, state):
        return {"peak": step.gradient.abs().flatten(1).amax(dim=1)}, state


class Scaled(Probe):
    variables = (Variable("scaled", "largest magnitude, scaled", "scale * max|g|"),)

    def __init__(self, scale: float, power: int = 1):
        if power < 1:
            raise ValueError(f"power must be at least 1, got {power}")
        self.scale, self.power = scale, power

    def measure(self, step, state):
        return {"scaled": self.scale * step.gradient.abs().flatten(1).amax(dim=1) ** self.power}, state


class Greedy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.unet, self.config = denoiser()[0], denoiser()[0].config

    def forward(self, x, t):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return self.unet(x, t)


def greedy():
    return Greedy(), DDPMScheduler()
"""


@pytest.fixture
def content(tmp_path, monkeypatch):
    (tmp_path / "mymodels.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mymodels", raising=False)
    return {
        "denoiser": "mymodels:denoiser",
        "classifiers": {"robust": "mymodels:robust", "non_robust": "mymodels:non_robust"},
        "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": [0, 0.4]},
        "stabilizers": {"none": {}, "adam": {}},
        "sampling": {"num_inference_steps": 4, "samples": 5, "batch_size": 3},
        "probes": ["gradient", "update", "x_t", "norms", "cosines", "mymodels:Peak"],
        "recording": {"path": str(tmp_path / "run.zarr")},
    }


def run_of(content, **options):
    return prepare(check(RunConfig, content, "test"), device="cpu", **options)


def test_every_cell_is_recorded_over_the_same_noise(content):
    seen = []
    run = run_of(content)
    record_run(run, on_step=lambda cell, step: seen.append((cell, step.timestep)))
    assert len(seen) == 16 * 2 * 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr("run.zarr")
    assert {dim: ds.sizes[dim] for dim in CELL_DIMS} == dict(zip(CELL_DIMS, (2, 2, 2, 2), strict=True))
    assert (ds["written"] == 3).all()
    first = ds["x_t"].isel(timestep=0).values.reshape(16, -1)
    assert (first == first[0]).all()
    control = ds.sel(guidance_scale=0)["x_t"].values.reshape(8, -1)
    assert (control == control[0]).all()
    guided = ds.sel(guidance_scale=0.4)["image"].values.reshape(8, -1)
    assert len({image.tobytes() for image in guided}) == 8
    np.testing.assert_allclose(ds["peak"].values, np.abs(ds["gradient"].values).max(axis=(-3, -2, -1)), rtol=1e-6)


def test_each_cell_equals_its_sampler_run_alone(content):
    run = run_of(changed(content, "guidance.guidance_scale", [0.4]))
    record_run(run)
    ds = gradscope.open("run.zarr")
    models = importlib.import_module("mymodels")
    for name, method, stabilizer in (("robust", "none", Identity()), ("non_robust", "adam", Adam())):
        guidance = gradscope.ClassifierGuidance(getattr(models, name)(), "x0", guidance_scale=0.4)
        unet, scheduler = models.denoiser()
        unet = unet.to(memory_format=torch.channels_last)  # like models that a run loads
        sampler = gradscope.GuidedSampler(unet, scheduler, guidance, stabilizer)
        blocks = [sampler.sample([0, 1, 2], 4, first_sample=0), sampler.sample([3, 0], 4, first_sample=3)]
        cell = ds.sel(classifier=name, classifier_input="x0", stabilizer=method, guidance_scale=0.4)
        np.testing.assert_array_equal(cell["image"].values, torch.cat(blocks).numpy())


def test_probes_with_options_are_recorded_with_their_coordinates(content):
    names = ["classifier.linear", "unet.mid_block"]
    content |= {"stabilizers": {"none": {}}, "sampling": {"num_inference_steps": 2, "samples": 3, "batch_size": 2}}
    content["guidance"]["guidance_scale"] = [0.4]
    content["probes"] = [
        "gradient",
        "spectrum",
        {"reference": {"classifier": "mymodels:robust"}},
        {"snr": {"draws": 2}},
        {"attribution": {"draws": 1, "radius": 0.1}},
        {"layers": {"names": names}},
        {"mymodels:Scaled": {"scale": 2, "power": 2}},
    ]
    run = run_of(content)
    record_run(run)
    ds = xr.open_zarr("run.zarr")
    assert list(ds.layer.values) == names
    np.testing.assert_allclose(ds.radial_frequency, (np.arange(12) + 0.5) / 16)
    assert ds.radial_frequency.attrs["units"] == "cycle/pixel"
    assert ds.radial_spectrum.dims[-2:] == ("timestep", "radial_frequency")
    assert ds.layer_gradient_norm.dims[-2:] == ("timestep", "layer")
    own = ds.reference_cosine.sel(classifier="robust", classifier_input="x_t").values
    np.testing.assert_allclose(own, 1, rtol=1e-4)
    assert (np.abs(ds.reference_cosine.sel(classifier="non_robust").values) < 0.9).all()
    unet = ds.layer_gradient_norm.sel(layer="unet.mid_block")
    assert np.isnan(unet.sel(classifier_input="x_t").values).all()
    assert (unet.sel(classifier_input="x0").values > 0).all()
    np.testing.assert_allclose(ds.scaled, 2 * np.abs(ds.gradient.values).max(axis=(-3, -2, -1)) ** 2, rtol=1e-5)
    for name in ("gradient_snr", "sensitivity_max", "infidelity", "high_frequency_share", "layer_activation_norm"):
        assert np.isfinite(ds[name].values).all()
    hashes = json.loads(ds.attrs["weights_sha256"])
    assert hashes["probes.reference.classifier"] == hashes["classifiers.robust"]
    assert json.loads(ds.attrs["configuration"])["probes"] == content["probes"]
    content["probes"] = ["gradient"]
    record_run(run_of(content, store="bare.zarr"))
    np.testing.assert_array_equal(xr.open_zarr("bare.zarr")["image"].values, ds["image"].values)


def test_smoothgrad_by_configuration_equals_that_of_python(content):
    content["guidance"] = {
        "classifier_input": ["x0"],
        "guidance_scale": [0.4],
        "smoothgrad": {"samples": 3, "std": 0.2},
    }
    content["stabilizers"] = {"none": {}}
    record_run(run_of(content))
    models = importlib.import_module("mymodels")
    unet, scheduler = models.denoiser()
    guidance = gradscope.ClassifierGuidance(models.robust(), "x0", guidance_scale=0.4, smoothgrad=SmoothGrad(3, 0.2))
    sampler = gradscope.GuidedSampler(unet.to(memory_format=torch.channels_last), scheduler, guidance)
    cell = gradscope.open("run.zarr").sel(
        classifier="robust", classifier_input="x0", stabilizer="none", guidance_scale=0.4
    )
    np.testing.assert_array_equal(cell["image"].values[3:], sampler.sample([3, 0], 4, first_sample=3).numpy())


def test_attributes_describe_the_origin(content):
    content |= {"guidance": {"guidance_scale": [0.4]}, "stabilizers": {"none": {}}}
    run = run_of(content, store="elsewhere.zarr")
    record_run(run, command=["gradscope", "record"])
    attributes = xr.open_zarr("elsewhere.zarr").attrs
    assert not Path("run.zarr").exists()
    assert json.loads(attributes["configuration"]) == run.config.model_dump(mode="json")
    scheduler = json.loads(attributes["scheduler"])
    assert scheduler == configuration_of(run.denoiser.scheduler)
    assert attributes["configuration_hash"] == config_hash(json.loads(attributes["configuration"]), scheduler)
    assert attributes["configuration_hash"] != config_hash(run.config.model_dump(mode="json"), scheduler | {"x": 1})
    assert attributes["command"] == "gradscope record"
    assert set(json.loads(attributes["weights_sha256"])) == {"denoiser", "classifiers.robust", "classifiers.non_robust"}
    assert len(set(json.loads(attributes["weights_sha256"]).values())) == 3
    assert attributes["device"].startswith("cpu")
    assert json.loads(attributes["versions"])["torch"] == metadata.version("torch")
    assert attributes["status"] == "complete"


def changed(content, key, value):
    *parents, last = key.split(".")
    target = content
    for parent in parents:
        target = target.setdefault(parent, {})
    target[last] = value
    return content


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("denoiser", "mymodels:nothing", "denoiser: mymodels has no 'nothing'"),
        ("denoiser", "zoo:sportballs32/ddmp", "denoiser: no 'zoo:sportballs32/ddmp' in the zoo"),
        (
            "classifiers.robust",
            "mymodels:wide",
            "classifiers.robust: the classifier does not take images of 3 x 8",
        ),
        ("classifiers.robust", "resnet18", "classifiers.robust: got 'resnet18'; possible: zoo:SET/NAME"),
        ("stabilizers", {"adm": {}}, "unknown stabilizer 'adm'; did you mean 'adam'"),
        ("probes", ["gradients"], "unknown probe 'gradients'; did you mean 'gradient'"),
        ("probes", ["gradient", "gradient"], "two of them record 'gradient'"),
        ("probes", [{"snr": {"drws": 8}}], "probes.snr.drws: unknown key; did you mean 'draws'[?] one of: draws, seed"),
        ("probes", [{"snr": {"draws": "8"}}], "probes.snr.draws: must be a whole number, got '8'"),
        ("probes", [{"snr": {"draws": 1}}], "probes.snr: draws must be at least 2, got 1"),
        ("probes", [{"norms": {"draws": 1}}], "probes.norms: takes no options, got draws"),
        ("probes", [{"srn": {"draws": 8}}], "probes: unknown probe 'srn'; did you mean 'snr'"),
        ("probes", ["reference"], "probes.reference.classifier: this key is missing"),
        (
            "probes",
            [{"reference": {"classifier": 3}}],
            "probes.reference.classifier: must be a name .zoo:SET/NAME.*, got 3",
        ),
        (
            "probes",
            [{"reference": {"classifier": "resnet18"}}],
            "probes.reference.classifier: got 'resnet18'; possible: ",
        ),
        (
            "probes",
            [{"reference": {"classifier": "mymodels:wide"}}],
            "probes.reference.classifier: the classifier does not",
        ),
        (
            "probes",
            [{"reference": {"classifier": {"timm": "resnet18"}}}],
            "probes.reference.classifier.num_classes: this key is missing",
        ),
        ("probes", [{"layers": {"names": "unet"}}], "probes.layers.names: must be a list, got 'unet'"),
        ("probes", [{"layers": {"names": ["unet", 3]}}], "probes.layers.names.1: must be text, got 3"),
        (
            "probes",
            [{"layers": {"names": ["classifier.linaer"]}}],
            "probes.layers, at classifiers.robust: names: got 'classifier.linaer', but classifier .LinearClassifier. "
            "has no layer 'linaer'; one of: linear",
        ),
        ("probes", ["mymodels:Scaled"], "probes.mymodels:Scaled.scale: this key is missing"),
        ("probes", [{"mymodels:Scaled": {"scale": "x"}}], "probes.mymodels:Scaled.scale: must be a number, got 'x'"),
        (
            "probes",
            [{"mymodels:Scaled": {"scale": 1, "power": 0}}],
            "probes.mymodels:Scaled: power must be at least 1, got 0",
        ),
        (
            "probes",
            ["mymodels:robust"],
            "probes.mymodels:robust: takes a probes.Probe, got an object of type LinearClassifier",
        ),
        ("probes", ["mymodels:sys"], "probes: mymodels has no 'sys'"),
        ("sampling.labels", [0, 4], "sampling.labels: the classifiers have classes 0 to 3, got 4"),
        ("sampling.labels", [-1], "sampling.labels: the classifiers have classes 0 to 3, got -1"),
        ("sampling.num_inference_steps", 2000, "at most the scheduler's 1000, got 2000"),
        ("sampling.scheduler", "ddim", None),
    ],
)
def test_wrong_settings_are_refused_before_anything_runs(content, tmp_path, key, value, message):
    content = changed(content, key, value)
    if key == "sampling.scheduler":
        content = changed(content, "guidance.weight", "variance")
        message = "guidance.weight: 'variance' weighs DDPM's noise"
    with pytest.raises(GradscopeError, match=message):
        run_of(content)
    assert not (tmp_path / "run.zarr").exists()


def test_classifiers_that_do_not_agree_in_their_classes_are_refused(content, tmp_path):
    with (tmp_path / "mymodels.py").open("a") as file:
        file.write("\n\ndef five():\n    return LinearClassifier(classes=5)\n")
    sys.modules.pop("mymodels", None)
    with pytest.raises(GradscopeError, match=r"probes.reference.classifier: has 5 classes, classifiers.robust has 4"):
        run_of({**content, "probes": [{"reference": {"classifier": "mymodels:five"}}]})
    with pytest.raises(GradscopeError, match=r"classifiers.non_robust: has 5 classes, classifiers.robust has 4"):
        run_of(changed(content, "classifiers.non_robust", "mymodels:five"))


def test_out_of_memory_says_which_batch_size_fits(content):
    content = changed(changed(content, "denoiser", "mymodels:greedy"), "sampling.batch_size", 5)
    content = changed(changed(content, "recording.codec", "none"), "guidance.classifier_input", ["x0"])
    with pytest.raises(GradscopeError) as caught:
        record_run(run_of(content))
    assert "out of memory at 5 samples; a step of 2 fits: --set sampling.batch_size=2" in str(caught.value)
    assert "x0_detached instead of x0" in str(caught.value)


def test_the_codec_is_chosen_by_the_gradients():
    noise = np.random.default_rng(0).normal(size=(8, 3, 32, 32)).astype("float32")
    sparse = noise * (np.random.default_rng(1).uniform(size=noise.shape) < 0.1)
    assert choose_codec(noise) == "none"
    assert choose_codec(sparse) == "lz4"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cpu:0x", "cuda:99"])
def test_missing_devices_are_refused(name):
    with pytest.raises(GradscopeError, match="device: "):
        set_device(name)


def test_probes_by_name_give_fresh_probes():
    first, again = (load_probes("norms", no_module) for _ in range(2))
    assert [type(p).__name__ for p in first] == ["Norm", "Norm"]
    assert first[0] is not again[0]


def test_options_reach_the_probe():
    (snr,) = load_probes({"snr": {"draws": 3}}, no_module)
    assert (snr.draws, snr.seed) == (3, 0)
    (reference,) = load_probes({"reference": {"classifier": "zoo:a/b"}}, lambda spec, where: Named(f"{where}={spec}"))
    assert reference.classifier.name == "probes.reference.classifier=zoo:a/b"


class Named(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        self.name = name


def no_module(spec, where):
    raise AssertionError(where)
