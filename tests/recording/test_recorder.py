"""A store holds the sampler's steps, and what a recorder refuses."""

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDPMScheduler
from every_probe import every_probe
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.errors import GradscopeError
from gradscope.recording.make_schema import make_schema
from gradscope.recording.recorder import Recorder
from gradscope.sampling.process import Schedule
from gradscope.stabilizers import Adam
from gradscope.store import Grid
from probes import Coordinate, Cosine, EffectiveStrength, GuidedStep, Layers, Norm, Probe, Tensor, Variable

LABELS = [0, 1, 2, 3, 0, 1]
STEPS = 12
FEW = 4  # every probe measures here, some with their own passes


@pytest.fixture
def sampler(unet, classifier):
    guidance = ClassifierGuidance(classifier, "x0", guidance_scale=0.4)
    return GuidedSampler(unet, DDPMScheduler(), guidance, Adam())


def steps_in_memory(sampler, batch_size):
    """All steps of all blocks as float64 arrays, (sample, timestep, ...)."""
    names = ("gradient", "update", "direction", "x_t", "pred_original_sample")
    blocks = []
    for first in range(0, len(LABELS), batch_size):
        steps = sampler.steps(LABELS[first : first + batch_size], FEW, seed=3, first_sample=first)
        blocks.append([{n: getattr(s, n).double().numpy() for n in (*names, "prev_sample")} for s in steps])
    return {n: np.concatenate([np.stack([s[n] for s in b], axis=1) for b in blocks]) for n in (*names, "prev_sample")}


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [6, 4, 1])
def test_the_store_holds_what_the_sampler_did(tmp_path, sampler, batch_size):
    with gradscope.record(sampler, tmp_path / "mine.zarr", every_probe()) as recorder:
        images = recorder.sample(LABELS, FEW, seed=3, batch_size=batch_size)
    truth = steps_in_memory(sampler, batch_size)
    ds = xr.open_zarr(tmp_path / "mine.zarr").squeeze()
    for name in ("gradient", "update", "direction", "x_t", "pred_original_sample"):
        np.testing.assert_array_equal(ds[name].values, truth[name].astype("float32"))
    np.testing.assert_array_equal(ds["image"].values, images.numpy())
    np.testing.assert_array_equal(images.numpy(), truth["prev_sample"][:, -1].astype("float32"))
    assert ds.attrs["status"] == "complete"
    assert str(ds["classifier"].values) == "mine"
    assert str(ds["stabilizer"].values) == "adam"
    np.testing.assert_array_equal(ds["label"].values, LABELS)


@pytest.mark.slow
def test_scalars_recomputed_from_the_stored_tensors_agree(tmp_path, sampler):
    with gradscope.record(sampler, tmp_path / "mine.zarr", every_probe()) as recorder:
        recorder.sample(LABELS, FEW)
    ds = xr.open_zarr(tmp_path / "mine.zarr").squeeze()
    for name in ("gradient", "update"):
        g = ds[name].values.astype("float64").reshape(len(LABELS), FEW, -1)
        norm = np.sqrt((g**2).sum(-1))
        np.testing.assert_allclose(ds[f"{name}_norm"].values, norm, rtol=1e-5)
        with np.errstate(invalid="ignore"):
            cosine = (g[:, 1:] * g[:, :-1]).sum(-1) / (norm[:, 1:] * norm[:, :-1])
        np.testing.assert_allclose(ds[f"{name}_cosine"].values[:, 1:], cosine, rtol=1e-5)
    length = 0.4 * (ds["update_norm"].values[:, :-1] > 0)
    expected = length / (ds["sigma"].values[:-1] * np.sqrt(192))
    np.testing.assert_allclose(ds["effective_strength"].values[:, :-1], expected, rtol=1e-4)


def test_samples_are_bit_identical_with_and_without_a_store(tmp_path, sampler):
    bare = sampler.sample(LABELS, FEW, seed=1)
    with gradscope.record(sampler, tmp_path / "mine.zarr", every_probe()) as recorder:
        assert torch.equal(recorder.sample(LABELS, FEW, seed=1), bare)


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e-36, 1e20])
def test_float16_keeps_gradients_of_any_size(tmp_path, unet, classifier, scale):
    class Scaled(nn.Module):
        def forward(self, x):
            return classifier(x) * scale

    guidance = ClassifierGuidance(Scaled(), objective="logit", guidance_scale=0.4)
    sampler = GuidedSampler(unet, DDPMScheduler(), guidance)
    for dtype in ("float32", "float16"):
        with gradscope.record(sampler, tmp_path / f"{dtype}.zarr", [Tensor("gradient")], dtype=dtype) as recorder:
            recorder.sample([0, 1], 3)
    raw = xr.open_zarr(tmp_path / "float16.zarr")
    assert raw["gradient"].dtype == np.float16
    # In this thread: dask's threads may flush denormals after an earlier run on the CPU.
    exact, rounded = (
        gradscope.open(tmp_path / f"{dtype}.zarr")["gradient"].compute(scheduler="synchronous").values
        for dtype in ("float32", "float16")
    )
    peak = np.abs(exact).max(axis=(-3, -2, -1), keepdims=True)
    assert (peak > 0).all()
    assert (np.abs(rounded - exact) <= np.abs(exact) * 2.0**-11 + peak * 2.0**-24).all()


def test_no_hook_remains_after_an_exception_and_recorded_steps_stay(tmp_path, sampler):
    class Fails(Probe):
        variables = (Variable("v", "v", "v"),)

        def measure(self, step, state):
            if step.step == 7:
                raise RuntimeError("in a probe")
            return {"v": torch.zeros(len(step.x_t))}, state

    with (
        pytest.raises(RuntimeError, match="in a probe"),
        gradscope.record(sampler, tmp_path / "mine.zarr", [Norm("gradient"), Fails()]) as recorder,
    ):
        recorder.sample(LABELS, STEPS)
    assert not sampler._hooks
    assert not any(module._forward_hooks or module._backward_hooks for module in sampler.unet.modules())
    ds = gradscope.open(tmp_path / "mine.zarr").squeeze()
    assert ds.attrs["status"] == "interrupted"
    np.testing.assert_array_equal((ds["written"] > 0).sum("timestep").values, 7)
    assert np.isfinite(ds["gradient_norm"].values[:, :7]).all()
    assert np.isnan(ds["gradient_norm"].values[:, 7:]).all()


def test_a_users_own_sampler_emits_guided_steps(tmp_path):
    """Steps without a GuidedSampler or model. A probe that needs a missing field raises an error."""
    torch.manual_seed(0)
    grid = Grid(
        ("mine",), ("x_t",), ("none",), (1.0,), np.array([0, 1]), np.array([5, 6]), timestep=np.array([2, 1, 0]),
        alphas_cumprod=np.ones(3), sigma=np.ones(3), sample_shape=(1, 4, 4), batch_size=2,
    )  # fmt: skip
    g, x = torch.randn(3, 2, 1, 4, 4), torch.randn(3, 2, 1, 4, 4)
    with Recorder(tmp_path / "s.zarr", grid, [Cosine("gradient")], device=torch.device("cpu")) as recorder:
        hook = recorder.trajectory((0, 0, 0, 0), 0)
        for i in range(3):
            hook(GuidedStep(step=i, timestep=2 - i, x_t=x[i], gradient=g[i]))
    expected = torch.nn.functional.cosine_similarity(g[1:].double().flatten(2), g[:-1].double().flatten(2), dim=-1)
    got = gradscope.open(tmp_path / "s.zarr").squeeze()["gradient_cosine"].values
    np.testing.assert_allclose(got[:, 1:], expected.T.numpy(), rtol=1e-5)
    with (
        pytest.raises(ValueError, match=r"EffectiveStrength needs GuidedStep.shift, GuidedStep.sigma"),
        Recorder(tmp_path / "t.zarr", grid, [EffectiveStrength()], device=torch.device("cpu")) as recorder,
    ):
        recorder.trajectory((0, 0, 0, 0), 0)(GuidedStep(step=0, timestep=2, x_t=x[0], gradient=g[0]))


def test_two_probes_of_one_name_are_refused(tmp_path, sampler):
    with (
        pytest.raises(GradscopeError, match="two of them record 'gradient_norm'"),
        gradscope.record(sampler, tmp_path / "s.zarr", [Norm("gradient"), Norm("gradient")]) as recorder,
    ):
        recorder.sample([0], 2)


def test_two_probes_with_other_values_along_one_dimension_are_refused(tmp_path, sampler):
    class Other(Probe):
        variables = (Variable("other", "other", "x", dims=("layer",), coords={"layer": Coordinate((1.0,), "place")}),)

        def measure(self, step, state):
            raise AssertionError

    with (
        pytest.raises(GradscopeError, match="'other' has other values along 'layer' than another variable"),
        gradscope.record(sampler, tmp_path / "s.zarr", [Layers(["unet.mid_block"]), Other()]) as recorder,
    ):
        recorder.sample([0], 2)


def test_an_unknown_layer_is_refused_before_a_store_is_created(tmp_path, sampler):
    with (
        pytest.raises(
            GradscopeError, match=r"probes: names: got 'unet.mid', but unet \(UNet2DModel\) has no layer 'mid'"
        ),
        gradscope.record(sampler, tmp_path / "s.zarr", [Layers(["unet.mid"])]) as recorder,
    ):
        recorder.sample([0], 2)
    assert not (tmp_path / "s.zarr").exists()


def test_an_existing_store_is_refused_before_anything_is_sampled(tmp_path, sampler):
    (tmp_path / "mine.zarr").mkdir()
    with pytest.raises(GradscopeError, match="exists"):
        gradscope.record(sampler, tmp_path / "mine.zarr", [Norm("gradient")])


def test_schema_keeps_tensors_in_the_asked_precision(sampler):
    grid = gradscope.record(sampler, "x.zarr", [])._grid(LABELS, Schedule(sampler.scheduler, STEPS), 0, 6)
    half = make_schema(grid, [Tensor("gradient"), Norm("gradient")], dtype="float16")
    assert {array.name: array.dtype for array in half.arrays} == {
        "gradient": "float16",
        "gradient_exponent": "int16",
        "gradient_norm": "float32",
        "image": "float32",
    }
