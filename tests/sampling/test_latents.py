"""Denoisers of latents: guides see the decoded x0-hat, and the sample is decoded."""

import re

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler
from solvers import Classifier, Denoiser, plain_loop

from gradscope.errors import GradscopeError
from gradscope.models.decoder import Decoder
from gradscope.sampling.guidance.classifier import ClassifierGuidance
from gradscope.sampling.sampler import GuidedSampler

LABELS, STEPS = [2, 0], 4
SCHEDULERS = [DDIMScheduler(clip_sample=False), DPMSolverMultistepScheduler(prediction_type="v_prediction")]


@pytest.fixture
def autoencoder():
    torch.manual_seed(0)
    made = AutoencoderKL(
        latent_channels=4,
        block_out_channels=[8, 8],
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        norm_num_groups=4,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    return made.eval().requires_grad_(False)


def sampler(autoencoder, scheduler, classifier_input, scale=0.3):
    guidance = ClassifierGuidance(Classifier(3 * 8 * 8), classifier_input, guidance_scale=scale)
    return GuidedSampler(Denoiser(4), scheduler, guidance, decoder=Decoder(autoencoder))


@pytest.mark.parametrize("classifier_input", ["x0", "x0_detached"])
@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_the_gradient_passes_the_decoder(autoencoder, scheduler, classifier_input):
    """Plain autograd in float64 at each recorded x_t; image = decode(x0-hat / scaling_factor + shift_factor)."""
    steps = list(sampler(autoencoder, scheduler, classifier_input).steps(LABELS, STEPS))
    denoiser, classifier, decoder = Denoiser(4).double(), Classifier(3 * 8 * 8).double(), autoencoder.double()
    for step in steps:
        x = step.x_t.double().requires_grad_()
        a = float(scheduler.alphas_cumprod[int(step.timestep)])
        alpha, sigma = a**0.5, (1 - a) ** 0.5
        output = denoiser(x, step.timestep)
        is_v = scheduler.config.prediction_type == "v_prediction"
        epsilon = sigma * x + alpha * output if is_v else output
        if classifier_input == "x0_detached":
            epsilon = epsilon.detach()
        image = decoder.decode((x - sigma * epsilon) / alpha / 0.5 + 0.1).sample
        log_p = classifier(image).log_softmax(dim=1)[range(2), LABELS]
        (gradient,) = torch.autograd.grad(log_p.sum(), x)
        size = float(gradient.abs().max())
        torch.testing.assert_close(step.gradient, gradient, rtol=0, atol=1e-3 * size)
        logits = classifier(image).detach()
        torch.testing.assert_close(step.logits.double(), logits, rtol=1e-3, atol=1e-4)
        assert step.prev_sample.shape == (2, 4, 4, 4)


@pytest.mark.parametrize("scheduler", SCHEDULERS, ids=lambda scheduler: type(scheduler).__name__)
def test_the_picture_is_the_decoded_sample(autoencoder, scheduler):
    unguided = sampler(autoencoder, scheduler, "x0_detached", scale=0.0)
    latent = plain_loop(scheduler, Denoiser(4), 2, STEPS, 5, (4, 4, 4))[-1]
    with torch.no_grad():
        expected = autoencoder.decode(latent / 0.5 + 0.1).sample
    assert torch.equal(unguided.sample(LABELS, STEPS, seed=5), expected)
    steps = list(unguided.steps(LABELS, STEPS, seed=5))
    assert [step.picture is None for step in steps] == [True] * (STEPS - 1) + [False]
    assert unguided.image_shape == (3, 8, 8)
    assert unguided.sample_shape == (4, 4, 4)


def test_the_decoder_is_left_as_it_was(autoencoder):
    autoencoder.train().requires_grad_(True)
    sampler(autoencoder, SCHEDULERS[0], "x0").sample(LABELS, 2)
    assert autoencoder.training
    assert all(p.requires_grad and p.grad is None for p in autoencoder.parameters())


def test_a_noisy_latent_is_refused(autoencoder):
    message = (
        "guidance.classifier_input: x_t is a noisy latent, which cannot be decoded; take x0 or x0_detached, or leave "
        "the decoder out for a guide of noisy latents"
    )
    with pytest.raises(GradscopeError, match=f"^{re.escape(message)}$"):
        sampler(autoencoder, SCHEDULERS[0], "x_t")
