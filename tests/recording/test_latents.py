"""Models of latents: guides see decoded samples, the store has pictures, and pipelines with an autoencoder load."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DiTPipeline, DiTTransformer2DModel, LDMPipeline, UNet2DModel, VQModel
from small_models import UNET, LinearClassifier
from tiny_pipelines import vae
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, Condition, GuidedSampler
from gradscope.config import RunConfig, check
from gradscope.errors import GradscopeError
from gradscope.models.decoder import Decoder
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

LABELS, STEPS = [0, 1, 2, 3, 0], 3
OWN = """
import torch
from diffusers import DDIMScheduler, UNet2DModel
from gradscope.models.decoder import Decoder
from small_models import UNET, LinearClassifier
from tiny_pipelines import vae


def make():
    unet = UNet2DModel(sample_size=8, in_channels=4, out_channels=4, **UNET)
    return unet, DDIMScheduler(clip_sample=False), Decoder(vae())


def guide():
    return LinearClassifier(size=16)
"""


def latent_unet():
    torch.manual_seed(0)
    return UNet2DModel(sample_size=8, in_channels=4, out_channels=4, **UNET).eval()


def judge_of_pictures():
    torch.manual_seed(3)
    return LinearClassifier(size=16, gain=3.0)


@pytest.fixture(scope="module")
def decoder():
    torch.manual_seed(0)
    return Decoder(vae())


def sampler(decoder, classifier_input="x0", guide=None, **options):
    guidance = ClassifierGuidance(guide or judge_of_pictures(), classifier_input=classifier_input, guidance_scale=0.3)
    return GuidedSampler(latent_unet(), DDIMScheduler(clip_sample=False), guidance, decoder=decoder, **options)


@pytest.mark.parametrize("classifier_input", ["x0", "x0_detached"])
def test_the_gradient_comes_back_through_the_decoder(decoder, classifier_input):
    made = sampler(decoder, classifier_input)
    guide, (step, *_) = made.guidance.classifier.eval(), made.steps(LABELS, STEPS)
    x = step.x_t.clone().requires_grad_()
    a = step.alphas_cumprod
    epsilon = made.unet(x, torch.full((len(x),), step.timestep)).sample
    epsilon = epsilon.detach() if classifier_input == "x0_detached" else epsilon
    images = decoder.autoencoder.decode((x - (1 - a) ** 0.5 * epsilon) / a**0.5 / decoder.scale).sample
    log_prob = guide(images).log_softmax(dim=1)[torch.arange(len(x)), torch.tensor(LABELS)]
    (expected,) = torch.autograd.grad(log_prob.sum(), x)
    torch.testing.assert_close(step.gradient.float(), expected, rtol=2e-3, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.slow
def test_a_recording_has_latents_and_pictures(decoder, tmp_path):
    cells = {"classifier_input": ["x0", "x0_detached"]}
    made = sampler(decoder)
    with gradscope.record(made, tmp_path / "a.zarr", ["norms"], cells=cells, judge=judge_of_pictures()) as recorder:
        ds = recorder.sample(LABELS, STEPS, batch_size=2).load()
    assert ds.image.dims[-4:] == ("sample", "channel", "height", "width")
    assert ds.picture.dims[-4:] == ("sample", "picture_channel", "picture_height", "picture_width")
    with torch.no_grad():
        for cell in range(2):
            latents = torch.tensor(ds.image.values[0, cell, 0, 0])
            pictures = torch.tensor(ds.picture.values[0, cell, 0, 0])
            torch.testing.assert_close(pictures, decoder(latents), rtol=1e-4, atol=1e-5)
            predicted = judge_of_pictures()(pictures).argmax(dim=1).numpy()
            np.testing.assert_array_equal(ds.judge_prediction.values[0, cell, 0, 0], predicted)
    assert gradscope.verify(tmp_path / "a.zarr").findings == ()
    assert len(gradscope.signatures(ds)) >= 0
    gradscope.report(ds)


def test_sample_returns_pictures_and_a_resumed_recording_too(decoder, tmp_path):
    made = sampler(decoder)
    with gradscope.record(made, tmp_path / "a.zarr", ["norms"]) as recorder:
        images = recorder.sample(LABELS, STEPS, batch_size=2)
    assert images.shape == (5, 3, 16, 16)
    with gradscope.record(made, tmp_path / "a.zarr", ["norms"], resume=True) as recorder:
        again = recorder.sample(LABELS, STEPS, batch_size=2)
    assert torch.equal(images, again)


@pytest.mark.slow
def test_a_configuration_names_a_model_of_latents(tmp_path, monkeypatch):
    (tmp_path / "latent_models.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    content = {
        "denoiser": "latent_models:make",
        "classifiers": {"mine": "latent_models:guide"},
        "judge": "latent_models:guide",
        "guidance": {"classifier_input": ["x0_detached"], "guidance_scale": [0.2]},
        "sampling": {"scheduler": "ddim", "num_inference_steps": 2, "samples": 4, "batch_size": 2},
        "recording": {"path": str(tmp_path / "a.zarr")},
    }
    record_run(prepare(check(RunConfig, content, "it")))
    ds = gradscope.open(tmp_path / "a.zarr")
    assert ds.picture.shape[-3:] == (3, 16, 16)
    assert {"denoiser", "decoder"} <= set(json.loads(ds.attrs["weights_sha256"]))
    with pytest.raises(GradscopeError, match="x_t is a noisy latent, which cannot be decoded; take x0 or x0_detached"):
        prepare(check(RunConfig, content | {"guidance": {"guidance_scale": [1]}}, "it"), overwrite=True)


def test_a_guide_that_does_not_take_the_decoded_images_is_refused(decoder, tmp_path):
    with pytest.raises(GradscopeError, match="fails on images of 3 x 16 x 16"):
        sampler(decoder, guide=LinearClassifier(size=8)).sample(LABELS, STEPS)


def test_pipelines_with_an_autoencoder_load(tmp_path):
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    quantised = VQModel(block_out_channels=(8, 8), latent_channels=4, norm_num_groups=4, num_vq_embeddings=8, **blocks)
    LDMPipeline(quantised, latent_unet(), DDIMScheduler()).save_pretrained(tmp_path / "ldm")
    loaded = gradscope.load_denoiser(str(tmp_path / "ldm"))
    latents = torch.randn(2, 4, 8, 8)
    expected = quantised.decode(latents / quantised.config.scaling_factor).sample
    torch.testing.assert_close(loaded.decoder(latents), expected)

    DDPMPipeline(latent_unet(), DDIMScheduler()).save_pretrained(tmp_path / "pixels")
    assert gradscope.load_denoiser(str(tmp_path / "pixels")).decoder is None


def test_a_class_conditional_transformer_of_latents_is_guided(tmp_path):
    """DiT: eight output channels, of which the second four are a variance; the null class is the last."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8, num_layers=1, sample_size=8,
        num_embeds_ada_norm=4, patch_size=2, norm_elementwise_affine=False,
    )  # fmt: skip
    for parameter in transformer.parameters():
        nn.init.normal_(parameter, std=0.2)
    DiTPipeline(transformer, vae(), DDIMScheduler()).save_pretrained(tmp_path)
    loaded = gradscope.load_denoiser(str(tmp_path))
    guidance = ClassifierGuidance(judge_of_pictures(), classifier_input="x0", guidance_scale=0.0)
    made = GuidedSampler(
        loaded.unet, loaded.scheduler, guidance, decoder=loaded.decoder, condition=Condition("label", scale=3.0)
    )
    (step, *_) = made.steps(LABELS, STEPS)
    with torch.no_grad():
        t = torch.full((5,), step.timestep)
        conditional = transformer.eval()(step.x_t, t, class_labels=torch.tensor(LABELS)).sample[:, :4]
        unconditional = transformer(step.x_t, t, class_labels=torch.full((5,), 4)).sample[:, :4]
    expected = unconditional + 3 * (conditional - unconditional)
    torch.testing.assert_close(step.model_output, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(conditional, unconditional)
