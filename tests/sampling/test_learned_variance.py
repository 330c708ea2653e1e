"""Denoisers that predict a variance: DDPM's own steps, shifts weighted by it, and solvers that drop it."""

import re

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier
from solvers import SHAPE, Case, Classifier, Denoiser, float64, own_generators, plain_loop, started

from gradscope.errors import GradscopeError
from gradscope.models.schedulers import SCHEDULERS
from gradscope.sampling.denoiser import Condition
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.process import Schedule
from gradscope.sampling.sampler import GuidedSampler

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
LEARNED = ("learned", "learned_range")
LABELS = [0, 3, 1]


class Positive(Denoiser):
    """A denoiser whose second half is a variance above 0."""

    def __init__(self):
        super().__init__(out_channels=6)

    def forward(self, x, t):
        made = super().forward(x, t)
        return torch.cat([made[:, :3], made[:, 3:].square() / 10 + 1e-3], dim=1)


def own_loop(scheduler, denoiser, shape, steps, seed):
    """`DDPMScheduler.step`, which splits the output itself."""
    scheduler, generators = started(scheduler, steps), own_generators(seed, len(LABELS))
    x, found = torch.stack([torch.randn(shape, generator=own) for own in generators]), []
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = denoiser(x, t)
        output = output if isinstance(output, torch.Tensor) else output.sample
        x = scheduler.step(output, t, x, generator=generators).prev_sample
        found.append(x)
    return found


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize("variance_type", LEARNED)
def test_an_unguided_run_is_ddpms_own_to_the_bit(variance_type, clip_sample):
    scheduler = DDPMScheduler(variance_type=variance_type, clip_sample=clip_sample)
    sampler = GuidedSampler(Positive(), scheduler, ClassifierGuidance(Classifier(), guidance_scale=0.0))
    got = list(sampler.steps(LABELS, 9, seed=4))
    for step, expected in zip(got, own_loop(scheduler, Positive(), SHAPE, 9, 4), strict=True):
        assert torch.isfinite(expected).all()
        assert torch.equal(step.prev_sample, expected)


def test_so_is_that_of_a_unet_with_six_channels():
    torch.manual_seed(0)
    # torch takes other kernels for weights that require a gradient, which round otherwise.
    unet = UNet2DModel(sample_size=SIZE, out_channels=6, **UNET).eval().requires_grad_(False)
    scheduler = DDPMScheduler(variance_type="learned_range", prediction_type="v_prediction")
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(LinearClassifier(), guidance_scale=0.0))
    assert torch.equal(sampler.sample(LABELS, 4, seed=1), own_loop(scheduler, unet, (3, SIZE, SIZE), 4, 1)[-1])


@pytest.mark.parametrize("variance_type", LEARNED)
@pytest.mark.parametrize("weight", ["sigma", "variance", "one"])
def test_the_shift_is_weighted_element_by_element(variance_type, weight):
    """The variance by the documents: itself, or between the posterior's and beta on a logarithmic scale."""
    steps = 6
    with float64():
        scheduler = DDPMScheduler(variance_type=variance_type)
        guidance = ClassifierGuidance(Classifier(), guidance_scale=0.7, weight=weight)
        got = list(GuidedSampler(Positive(), scheduler, guidance).steps(LABELS, steps))
        scheduler.set_timesteps(steps)
        shares = [*(float(scheduler.alphas_cumprod[t]) for t in scheduler.timesteps), 1.0]
        for i, step in enumerate(got):
            with torch.no_grad():
                told = Positive()(step.x_t, step.timestep)[:, 3:]
            beta = 1 - shares[i] / shares[i + 1]
            if i + 1 < steps:  # the last step, whose posterior has no variance, takes that of the step before
                least = (1 - shares[i + 1]) / (1 - shares[i]) * beta
            variance = told if variance_type == "learned" else beta ** ((1 + told) / 2) * least ** ((1 - told) / 2)
            factor = {"one": torch.ones_like(told), "sigma": variance.sqrt(), "variance": variance}[weight]
            torch.testing.assert_close(step.shift, 0.7 * factor * step.direction, rtol=1e-9, atol=0)
            rms = variance.mean(dim=(1, 2, 3)).sqrt() if i + 1 < steps else torch.zeros(3)
            torch.testing.assert_close(step.noise_added, rms, rtol=1e-9, atol=0)
            assert isinstance(step.sigma, float)


@pytest.mark.parametrize("variance_type", LEARNED)
def test_noise_added_is_the_spread_of_ddpms_steps(variance_type):
    """Two thousand draws at one x_t."""
    count = 2000
    scheduler = started(DDPMScheduler(variance_type=variance_type, clip_sample=False), 5)
    step = list(
        GuidedSampler(
            Positive(), DDPMScheduler(variance_type=variance_type, clip_sample=False), ClassifierGuidance(Classifier())
        ).steps([0], 5)
    )[2]
    with torch.no_grad():
        output = Positive()(step.x_t, step.timestep).expand(count, -1, -1, -1)
    x = step.x_t.expand(count, -1, -1, -1)
    made = scheduler.step(output, int(step.timestep), x, generator=torch.Generator().manual_seed(0)).prev_sample
    assert float(step.noise_added) == pytest.approx(float(made.var(dim=0).mean().sqrt()), rel=0.02)


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "ddpm"])
@pytest.mark.parametrize("channels", [3, 4])
def test_other_solvers_drop_the_variance(name, channels):
    """Also those that would cut the prediction to three channels, if their configuration says learned_range."""
    kind, shape = SCHEDULERS[name], (channels, *SHAPE[1:])
    settings = {"num_train_timesteps": 200} | ({"skip_prk_steps": True} if name == "pndm" else {})
    told, plain = (
        kind.from_config(DDPMScheduler(variance_type=variance_type).config, **settings)
        for variance_type in ("learned_range", "fixed_small")
    )
    denoiser = Denoiser(channels, 2 * channels)
    guidance = ClassifierGuidance(Classifier(16 * channels), guidance_scale=0.0)
    got = GuidedSampler(denoiser, told, guidance).sample(LABELS, 3, seed=2)
    assert torch.equal(got, plain_loop(plain, denoiser, 3, 3, 2, shape)[-1])
    guided = GuidedSampler(denoiser, told, ClassifierGuidance(Classifier(16 * channels), "x0", guidance_scale=0.1))
    assert all(torch.isfinite(step.prev_sample).all() for step in guided.steps(LABELS, 3))


def test_the_variance_of_a_fixed_ddpm_is_dropped_too():
    denoiser, scheduler = Denoiser(out_channels=6), DDPMScheduler()
    got = GuidedSampler(denoiser, scheduler, ClassifierGuidance(Classifier(), guidance_scale=0.0)).sample(LABELS, 4)
    assert torch.equal(got, plain_loop(scheduler, denoiser, 3, 4, 0)[-1])


def test_classifier_free_guidance_keeps_the_conditional_variance():
    class Told(Positive):
        config = None

        def forward(self, x, t, class_labels):
            made = super().forward(x, t) * (1 + class_labels.view(-1, 1, 1, 1) / 5)
            return torch.cat([made[:, :3], made[:, 3:].clamp(1e-3)], dim=1)

    denoiser = Told()
    denoiser.config = Denoiser().config
    scheduler = DDPMScheduler(variance_type="learned", clip_sample=False)
    sampler = GuidedSampler(
        denoiser, scheduler, ClassifierGuidance(Classifier()), condition=Condition("label", null_label=4, scale=3.0)
    )
    step = next(sampler.steps(LABELS, 5))
    with torch.no_grad():
        c, u = (denoiser(step.x_t, step.timestep, y) for y in (torch.tensor(LABELS), torch.full((3,), 4)))
    torch.testing.assert_close(step.model_output, u[:, :3] + 3 * (c - u)[:, :3])
    torch.testing.assert_close(step.noise_added, c[:, 3:].double().mean(dim=(1, 2, 3)).sqrt())


@pytest.mark.parametrize("variance_type", LEARNED)
def test_a_denoiser_without_a_variance_is_refused(variance_type, unet):
    """By its configuration before the run; one without channels in it, when it has run."""
    scheduler = DDPMScheduler(variance_type=variance_type)
    guidance = ClassifierGuidance(LinearClassifier())
    with pytest.raises(GradscopeError, match="^scheduler: variance_type is learned, but UNet2DModel has 3 input and 3"):
        GuidedSampler(unet, scheduler, guidance)
    sampler = GuidedSampler(Denoiser(), scheduler, ClassifierGuidance(Classifier()))
    message = (
        "scheduler: variance_type is learned, but Denoiser predicts no variance: it gave a tensor of the shape of "
        "x_t, (3, 3, 4, 4); take fixed_small or fixed_large"
    )
    with pytest.raises(GradscopeError, match=f"^{re.escape(message)}$"):
        sampler.sample(LABELS, 3)


def test_a_schedule_says_whether_the_variance_is_learned():
    assert Schedule(DDPMScheduler(variance_type="learned"), 3).learns_variance
    assert not Schedule(Case("ddim", {}, {}).scheduler(), 3).learns_variance
