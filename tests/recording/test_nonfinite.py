"""Values that are not finite are reported with their source, and can stop a run."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from small_models import LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.errors import NonFiniteGradient
from gradscope.recording.recorder import Recorder
from gradscope.sampling.process import Schedule
from gradscope.sampling.seeds import sample_seeds
from gradscope.stabilizers import Adam
from gradscope.store import Grid
from probes import GuidedStep, Norm, Tensor

STEPS = 12


@pytest.fixture
def sampler(unet, classifier):
    guidance = ClassifierGuidance(classifier, "x0", guidance_scale=0.4)
    return GuidedSampler(unet, DDPMScheduler(), guidance, Adam())


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
        f"the guide's output not finite at timestep {timestep}, sample 1, classifier non_robust, classifier_input x_t, "
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
