"""Faster ways to run the models against the models as they are."""

import json

import pytest
import torch
import xarray as xr
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier, ZeroUNet

from gradscope.config import ExecutionConfig, RunConfig, check
from gradscope.errors import GradscopeError
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.sampling.execution import deviation, set_up
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler


def sampler_of(unet, scheduler, classifier, classifier_input="x0", autocast=None):
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, classifier_input), autocast=autocast)


def by_hand(unet, scheduler, classifier, x_t, t, label, dtype):
    """Gradient through x0-hat of an epsilon model and x0-hat, by plain autograd under autocast."""
    a = scheduler.alphas_cumprod[t]
    x = x_t.clone().requires_grad_()
    with torch.autocast("cpu", dtype):
        output = unet(x, t).sample
    x_0 = ((x - (1 - a) ** 0.5 * output.float()) / a**0.5).clamp(-1, 1)
    z = classifier(x_0)
    others = z.masked_fill(torch.nn.functional.one_hot(label, 4).bool(), -torch.inf)
    margin = z.gather(1, label[:, None])[:, 0] - others.logsumexp(dim=1)
    gradient = torch.autograd.grad(margin.sum(), x)[0].double()  # what passes the layers in half precision
    return gradient * torch.sigmoid(-margin.detach()).view(-1, 1, 1, 1), x_0.detach()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_torchs_for_the_unet_alone(unet, scheduler, classifier, dtype):
    sampler = sampler_of(unet, scheduler, classifier, autocast=dtype)
    step = next(sampler.steps([0, 1, 2], 3))
    gradient, x_0 = by_hand(unet, scheduler, classifier, step.x_t, step.timestep, step.label, dtype)
    torch.testing.assert_close(step.gradient, gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max()))
    torch.testing.assert_close(step.pred_original_sample, x_0, rtol=1e-4, atol=1e-4)
    assert (step.gradient.dtype, step.prev_sample.dtype) == (torch.float64, torch.float32)


def test_deviation_is_the_largest_over_the_eager_trajectory(unet, scheduler, classifier):
    eager = sampler_of(unet, scheduler, classifier)
    far, moved = [], []
    for step in eager.steps([0, 1, 2, 3], 3, seed=5):
        gradient, x_0 = by_hand(unet, scheduler, classifier, step.x_t, step.timestep, step.label, torch.bfloat16)
        far.append(((gradient - step.gradient).flatten(1).norm(dim=1) / step.gradient.flatten(1).norm(dim=1)).max())
        moved.append((x_0 - step.pred_original_sample).abs().max())
    found = deviation(sampler_of(unet, scheduler, classifier, autocast=torch.bfloat16), [0, 1, 2, 3, 0], seed=5)
    assert found.gradient == pytest.approx(float(max(far)), rel=1e-3)
    assert found.pred_original_sample == pytest.approx(float(max(moved)), rel=1e-3)
    assert found.gradient > 1e-4
    assert deviation(eager, [0, 1]) == (0, 0)


class NotFinite(LinearClassifier):
    """Its gradient is NaN where the image was rounded to bfloat16."""

    def forward(self, x):
        rounded = (x == x.bfloat16().float()).all()
        return super().forward(x * torch.nan if rounded else x)


class Rounding(ZeroUNet):
    """Gives x_t itself, rounded where autocast has it so."""

    def forward(self, x, t):
        return x.bfloat16() if torch.is_autocast_enabled("cpu") else x


def test_what_only_the_fast_way_makes_not_finite_is_no_small_deviation():
    scheduler = DDPMScheduler(prediction_type="sample", clip_sample=False)
    sampler = sampler_of(Rounding(), scheduler, NotFinite(), autocast=torch.bfloat16)
    assert deviation(sampler, [0, 1]).gradient == torch.inf


def test_checkpointed_unet_keeps_less_and_gives_the_same_gradient(scheduler, classifier):
    torch.manual_seed(0)
    unet = UNet2DModel(sample_size=SIZE, **UNET)
    kept, steps = [], []
    for checkpointing in (False, True):
        set_up(ExecutionConfig(gradient_checkpointing=checkpointing), unet, [])
        count = 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            steps.append(next(sampler_of(unet, scheduler, classifier).steps([0, 1], 3)))
        kept.append(count)
    assert kept[1] < kept[0] / 2
    torch.testing.assert_close(steps[1].gradient, steps[0].gradient, rtol=1e-5, atol=1e-9)


def test_unets_without_checkpointing_are_refused():
    with pytest.raises(GradscopeError, match="execution.gradient_checkpointing: ZeroUNet does not support it"):
        set_up(ExecutionConfig(gradient_checkpointing=True), ZeroUNet(), [])


@pytest.mark.slow
def test_compiled_models_give_the_same_gradient(unet, scheduler, classifier):
    eager = next(sampler_of(unet, scheduler, classifier).steps([0, 1], 3))
    set_up(ExecutionConfig(compile=True), unet, [classifier])
    sampler = sampler_of(unet, scheduler, classifier)
    torch.testing.assert_close(next(sampler.steps([0, 1], 3)).gradient, eager.gradient, rtol=1e-4, atol=1e-7)
    assert 0 < deviation(sampler, [0, 1]).gradient < 1e-4
    torch.compiler.reset()


def content(path, **execution):
    return {
        "denoiser": "zoo:sportballs32/ddpm",
        "classifiers": {"robust": "zoo:sportballs32/robust"},
        "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": [0.4]},
        "sampling": {"num_inference_steps": 2, "samples": 2},
        "execution": execution,
        "recording": {"path": str(path)},
    }


@pytest.mark.slow
def test_a_run_states_its_deviation(tmp_path):
    for name, execution in {"fast": {"autocast": "bfloat16", "tolerance": 1.0}, "exact": {}}.items():
        path = tmp_path / f"{name}.zarr"
        record_run(prepare(check(RunConfig, content(path, **execution), "test"), "cpu"))
    fast, exact = (json.loads(xr.open_zarr(tmp_path / f"{name}.zarr").attrs["deviation"]) for name in ("fast", "exact"))
    assert exact == {}
    assert fast["robust, x_t"]["gradient"] == 0
    assert 1e-4 < fast["robust, x0"]["gradient"] < 1


@pytest.mark.slow
def test_a_run_beyond_its_tolerance_is_refused(tmp_path):
    run = prepare(check(RunConfig, content(tmp_path / "run.zarr", autocast="bfloat16", tolerance=1e-6), "test"), "cpu")
    with pytest.raises(GradscopeError, match="execution.tolerance: the gradient of robust, x0 is off by"):
        record_run(run)
    assert not (tmp_path / "run.zarr").exists()
