"""Runs by configuration, with a user's own small models."""

import importlib
import json
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import own_models
import pytest
import torch
import xarray as xr
from own_models import changed, run_of

import gradscope
from gradscope.errors import GradscopeError
from gradscope.recording.codec import choose_codec
from gradscope.recording.run import record_run
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.process import configuration_of
from gradscope.stabilizers import Adam, Identity
from gradscope.store import CELL_DIMS
from gradscope.store.config_hash import config_hash

content = own_models.content


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_out_of_memory_says_which_batch_size_fits(content):
    content = changed(changed(content, "denoiser", "mymodels:greedy"), "sampling.batch_size", 5)
    content = changed(changed(content, "recording.codec", "none"), "guidance.classifier_input", ["x0"])
    with pytest.raises(GradscopeError) as caught:
        record_run(run_of(content))
    assert "out of memory at 5 samples; a step of 2 fits: --set sampling.batch_size=2" in str(caught.value)
    assert "x0_detached instead of x0" in str(caught.value)


def test_the_codec_is_chosen_by_the_gradients():
    noise = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    sparse = noise * (torch.rand(noise.shape, generator=torch.Generator().manual_seed(1)) < 0.1)
    assert choose_codec(noise, "float32") == "none"
    assert choose_codec(sparse, "float32") == "lz4"
