"""The sampler on every device; on the CPU, among the slow tests, this rehearses what `make test-gpu` runs."""

import copy
import inspect

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel
from exactness import METHODS, made
from small_models import SIZE, UNET, LinearClassifier
from tiny_pipelines import vae

from gradscope import ClassifierGuidance, Condition, GuidedSampler, Measurement
from gradscope.models.decoder import Decoder
from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.seeds import sample_seeds

DEVICES = [pytest.param("cpu", marks=pytest.mark.slow), pytest.param("cuda", marks=pytest.mark.gpu)]
LABELS, STEPS = [0, 1, 2, 3], 4


def models(device, **options):
    torch.manual_seed(0)
    unet, classifier = UNet2DModel(sample_size=SIZE, **UNET | options), LinearClassifier(gain=3.0)
    return unet.to(device).eval(), classifier.to(device)


def steps_of(device, scheduler, unet_options=None, **options):
    unet, classifier = models(device, **(unet_options or {}))
    guide = options.pop("guide", classifier).to(device)
    given, method = options.pop("given", "x0"), options.pop("method", METHODS["classifier"])
    guidance = ClassifierGuidance(guide, given, options.pop("scale", 0.2), method=method)
    return list(GuidedSampler(unet, scheduler, guidance, **options).steps(LABELS, STEPS, seed=3))


def assert_same_first_step(device, scheduler, **options):
    """The noise does not depend on the device; one step at the same x_t agrees."""
    (here, *_), (there, *_) = (steps_of(d, scheduler, **copy.deepcopy(options)) for d in ("cpu", device))
    assert torch.equal(here.x_t, there.x_t.cpu())
    for name in ("gradient", "pred_original_sample", "shift", "prev_sample"):
        a, b = getattr(here, name).double(), getattr(there, name).double().cpu()
        assert b.isfinite().all()
        assert float((a - b).norm()) <= 1e-3 * float(a.norm()), name


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", list(SCHEDULERS))
def test_an_unguided_run_is_the_schedulers_loop_to_the_bit(name, device):
    torch.backends.cudnn.deterministic = True
    scheduler = made(name, "flow" if name.startswith("flow") else "epsilon")
    ours = steps_of(device, scheduler, scale=0.0, given="x_t")
    unet, _ = models(device)
    unet.requires_grad_(False)  # torch takes other kernels where weights may need a gradient
    scheduler.set_timesteps(STEPS)
    generators = [torch.Generator().manual_seed(int(seed)) for seed in sample_seeds(3, range(len(LABELS)))]
    x = torch.stack([torch.randn(3, SIZE, SIZE, generator=g) for g in generators]).to(device)
    x = x * float(getattr(scheduler, "init_noise_sigma", 1.0))
    takes = "generator" in inspect.signature(scheduler.step).parameters
    for t in scheduler.timesteps:
        given = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        with torch.no_grad():
            output = unet(given, t.to(device)).sample
        x = scheduler.step(output, t, x, **({"generator": generators} if takes else {})).prev_sample
    assert torch.equal(ours[-1].prev_sample, x)
    assert_same_first_step(device, made(name, "flow" if name.startswith("flow") else "epsilon"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(method, device):
    observed = Measurement(lambda x_0: x_0[..., ::2], torch.full((1, 3, SIZE, SIZE // 2), 0.5), 0.1)
    guide = {"guide": observed} if method == "pigdm" else {}
    given = METHODS[method].inputs[0]
    assert_same_first_step(device, DDIMScheduler(), method=METHODS[method], given=given, **guide)
    repeats = max(
        step.repeat for step in steps_of(device, DDPMScheduler(), method=METHODS[method], given=given, **guide)
    )
    assert repeats == (1 if method in ("freedom", "universal") else 0)


@pytest.mark.parametrize("device", DEVICES)
def test_learned_variances_classes_and_latents(device):
    learned = DDPMScheduler(variance_type="learned_range")
    assert_same_first_step(device, learned, unet_options={"out_channels": 6})
    assert_same_first_step(
        device, DDIMScheduler(), unet_options={"num_class_embeds": 5}, condition=Condition("label", scale=2.0)
    )
    torch.manual_seed(1)
    latents = {"in_channels": 4, "out_channels": 4}
    assert_same_first_step(
        device,
        DDIMScheduler(clip_sample=False),
        unet_options=latents,
        decoder=Decoder(vae()).to(device),
        guide=LinearClassifier(size=2 * SIZE),
    )
