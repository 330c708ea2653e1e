from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from diffusers import DDPMScheduler
from every_probe import every_probe
from small_models import LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.errors import GradscopeError, NonFiniteGradient
from gradscope.recording.from_python import SamplerRecorder
from gradscope.recording.recorder import Recorder
from gradscope.recording.schema import make_schema
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import sample_seeds
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


class NaNOnce(nn.Module):
    """A U-Net that gives NaN for sample 0 in its second call."""

    config = SimpleNamespace(sample_size=8, in_channels=3, out_channels=3)

    def __init__(self):
        super().__init__()
        self.scale, self.calls = nn.Parameter(torch.zeros(())), 0

    def forward(self, x, t):
        self.calls += 1
        factor = torch.ones(len(x), 1, 1, 1)
        factor[0] = torch.nan if self.calls == 2 else 1
        return x * self.scale * factor


class InfiniteSlope(LinearClassifier):
    """Finite logits with a derivative that is not finite, for sample 1."""

    def forward(self, x):
        logits = super().forward(x)
        zero = torch.zeros(len(x), 1)
        zero[0] = 1.0
        return logits + (logits[:, :1] * 0 + zero).sqrt()


@pytest.mark.parametrize("classifier_input", ["x_t", "x0"])
def test_values_that_are_not_finite_are_reported_with_their_source(tmp_path, unet, classifier, classifier_input):
    """A NaN of the denoiser is reported as the denoiser's for every input of the guide, and only once."""
    for name, models, expected in [
        ("denoiser", (NaNOnce(), classifier), [(0, 1, "denoiser")]),
        ("gradient", (unet, InfiniteSlope()), [(1, k, "gradient") for k in range(3)]),
    ]:
        guidance = ClassifierGuidance(models[1], classifier_input, objective="logit")
        sampler, schedule = GuidedSampler(models[0], DDPMScheduler(), guidance), Schedule(DDPMScheduler(), 3)
        grid = Grid(
            ("mine",), (classifier_input,), ("none",), (1.0,), np.array([0, 1]), sample_seeds(0, range(2)),
            sample_shape=(3, 8, 8), batch_size=2, **schedule.coordinates(),
        )  # fmt: skip
        recorder = Recorder(tmp_path / f"{name}.zarr", grid, [], device=torch.device("cpu"))
        with recorder, sampler.register_step_hook(recorder.trajectory((0, 0, 0, 0), 0)):
            sampler.sample([0, 1], 3)
        steps = [int(t) for t in schedule.coordinates()["timestep"]]
        found = [(f.sample, steps.index(f.timestep), f.source) for f in recorder.nonfinite]
        assert found == expected
        stored = gradscope.open(tmp_path / f"{name}.zarr").squeeze()["nonfinite_source"].values
        assert stored[0].tolist() == ([0, 2, 1] if name == "denoiser" else [0, 0, 0])


class NaNFrom(nn.Module):
    """NaN logits for sample 1 in the fifth call."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier, self.calls = classifier, 0

    def forward(self, x):
        self.calls += 1
        factor = torch.ones(len(x), 1)
        factor[1] = torch.nan if self.calls == 5 else 1
        return self.classifier(x) * factor


def recorded(path, unet, classifier, **options):
    scheduler = DDPMScheduler()
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(NaNFrom(classifier)))
    grid = Grid(
        ("non_robust",), ("x_t",), ("none",), (1.0,), np.array([0, 1, 2]), sample_seeds(0, range(3)),
        sample_shape=(3, 8, 8), batch_size=3, **Schedule(scheduler, STEPS).coordinates(),
    )  # fmt: skip
    recorder = Recorder(path, grid, [Norm("gradient"), Tensor("gradient")], device=torch.device("cpu"), **options)
    with recorder, sampler.register_step_hook(recorder.trajectory((0, 0, 0, 0), 0)):
        sampler.sample([0, 1, 2], STEPS)
    return recorder


def test_a_gradient_that_is_not_finite_is_reported_with_timestep_sample_and_cell(tmp_path, unet, classifier):
    recorder = recorded(tmp_path / "s.zarr", unet, classifier)
    timestep = int(recorder.schema.grid.timestep[4])
    assert [(found.sample, found.timestep) for found in recorder.nonfinite] == [(1, timestep)]
    assert recorder.describe(recorder.nonfinite[0]) == (
        f"the guide's logits not finite at timestep {timestep}, sample 1, classifier non_robust, classifier_input x_t, "
        "stabilizer none, guidance_scale 1.0"
    )
    ds = gradscope.open(tmp_path / "s.zarr").squeeze()
    assert float(ds["finite_fraction"].min()) == 0
    assert np.isnan(ds["gradient"].sel(sample=1, timestep=timestep)).all()
    assert int(np.isnan(ds["gradient_norm"]).sum()) == 1
    assert (ds["written"] == 3).all()


def test_a_run_can_stop_at_a_gradient_that_is_not_finite(tmp_path, unet, classifier):
    with pytest.raises(NonFiniteGradient, match="sample 1, classifier non_robust") as caught:
        recorded(tmp_path / "s.zarr", unet, classifier, stop_on_nonfinite=True)
    assert caught.value.exit_status == 3
    ds = gradscope.open(tmp_path / "s.zarr")
    assert ds.attrs["status"] == "interrupted"
    assert 5 <= int((ds["written"] > 0).isel(sample=0).sum()) < STEPS


def test_a_run_stops_at_the_last_gradient_too(tmp_path):
    grid = Grid(
        ("mine",), ("x_t",), ("none",), (1.0,), np.array([0, 1]), np.array([5, 6]), timestep=np.array([2, 1, 0]),
        alphas_cumprod=np.ones(3), sigma=np.ones(3), sample_shape=(1, 4, 4), batch_size=2,
    )  # fmt: skip
    g = torch.ones(3, 2, 1, 4, 4)
    g[2, 1] = torch.nan
    recorder = Recorder(tmp_path / "s.zarr", grid, [], device=torch.device("cpu"), stop_on_nonfinite=True)
    hook = recorder.trajectory((0, 0, 0, 0), 0)
    for i in range(3):
        hook(GuidedStep(step=i, timestep=2 - i, x_t=g[i], gradient=g[i]))
    with pytest.raises(NonFiniteGradient, match="at timestep 0, sample 1, classifier mine"), recorder:
        pass
    ds = gradscope.open(tmp_path / "s.zarr")
    assert ds.attrs["status"] == "interrupted"
    assert (ds["written"] > 0).all()


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
    grid = SamplerRecorder(sampler, "x.zarr", [], ("a", "b"), {"overwrite": False, "resume": False})._grid(
        LABELS, Schedule(sampler.scheduler, STEPS), 0, 6
    )
    half = make_schema(grid, [Tensor("gradient"), Norm("gradient")], dtype="float16")
    assert {array.name: array.dtype for array in half.arrays} == {
        "gradient": "float16",
        "gradient_exponent": "int16",
        "gradient_norm": "float32",
        "image": "float32",
    }
