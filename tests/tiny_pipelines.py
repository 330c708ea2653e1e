"""Diffusers pipelines with tiny random components, each with a function that runs it from the same noise."""

import diffusers
import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
NO_ENCODERS = {f"{kind}{n}": None for kind in ("text_encoder", "tokenizer") for n in ("", "_2", "_3")}


def noise(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def generator():
    return torch.Generator().manual_seed(1)


def vae(**further):
    return AutoencoderKL(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, latent_channels=4, norm_num_groups=4,
        up_block_types=("UpDecoderBlock2D",) * 2, **further,
    ).eval()  # fmt: skip


FLOW_VAE = {"shift_factor": 0.06, "scaling_factor": 1.5, "use_quant_conv": False, "use_post_quant_conv": False}


def text_encoder():
    config = CLIPTextConfig(
        vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=8,
    )  # fmt: skip
    return CLIPTextModel(config).eval()


def stable_diffusion(scheduler=None):
    """U-Net, VAE and text encoder; the embeddings of two prompts are made by the text encoder."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), cross_attention_dim=16, attention_head_dim=4,
    ).eval()  # fmt: skip
    pipe = StableDiffusionPipeline(
        vae=vae(), text_encoder=text_encoder(), tokenizer=None, unet=unet, safety_checker=None,
        scheduler=scheduler or DDIMScheduler(**BETAS), feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip

    def run(**settings):
        with torch.no_grad():
            prompts, empty = (
                pipe.text_encoder(torch.tensor(tokens)).last_hidden_state
                for tokens in ([[1, 5, 9, 2], [1, 7, 3, 2]], [[1, 2, 2, 2]] * 2)
            )
        settings = {"guidance_scale": 5.0, "num_inference_steps": 6, "output_type": "latent"} | settings
        return pipe(prompt_embeds=prompts, negative_prompt_embeds=empty, generator=generator(), **settings).images

    return quiet(pipe), run


def dit(scheduler=None):
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        sample_size=8, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, attention_bias=True, activation_fn="gelu-approximate", num_embeds_ada_norm=1000,
        norm_type="ada_norm_zero", norm_elementwise_affine=False,
    ).eval()  # fmt: skip
    for parameter in transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    pipe = DiTPipeline(transformer, vae(), scheduler or DDIMScheduler(clip_sample=False))

    def run(**settings):
        settings = {"guidance_scale": 4.0, "num_inference_steps": 5} | settings
        return torch.as_tensor(pipe([1, 2], generator=generator(), output_type="np", **settings).images)

    return quiet(pipe), run


def sd3(scheduler=None):
    torch.manual_seed(0)
    transformer = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
    ).eval()  # fmt: skip
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    pipe = StableDiffusion3Pipeline(transformer=transformer, scheduler=scheduler, vae=vae(**FLOW_VAE), **NO_ENCODERS)

    def run(**settings):
        settings = {"guidance_scale": 4.0, "num_inference_steps": 5, "output_type": "latent"} | settings
        return pipe(
            prompt_embeds=noise(1, 2, 5, 32), negative_prompt_embeds=noise(2, 2, 5, 32),
            pooled_prompt_embeds=noise(3, 2, 64), negative_pooled_prompt_embeds=noise(4, 2, 64),
            generator=generator(), height=16, width=16, **settings,
        ).images  # fmt: skip

    return quiet(pipe), run


def flux(scheduler=None):
    """Flux with true classifier-free guidance: two calls of the transformer, packed latents."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=[4, 4, 8], guidance_embeds=False,
    ).eval()  # fmt: skip
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    without = {name: part for name, part in NO_ENCODERS.items() if not name.endswith("_3")}
    pipe = FluxPipeline(transformer=transformer, scheduler=scheduler, vae=vae(**FLOW_VAE), **without)

    def run(**settings):
        settings = {"true_cfg_scale": 4.0, "num_inference_steps": 5} | settings
        return pipe(
            prompt_embeds=noise(1, 2, 5, 32), negative_prompt_embeds=noise(2, 2, 5, 32),
            pooled_prompt_embeds=noise(3, 2, 32), negative_pooled_prompt_embeds=noise(4, 2, 32),
            generator=generator(), height=16, width=16, output_type="latent", **settings,
        ).images  # fmt: skip

    return quiet(pipe), run


def lumina2(scheduler=None, cfg_normalization=False):
    """Lumina2 gives its scheduler the negative of the denoiser's output."""
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=4, patch_size=2, in_channels=4, hidden_size=8, num_layers=2, num_attention_heads=1,
        num_kv_heads=1, multiple_of=16, ffn_dim_multiplier=None, norm_eps=1e-5, scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2], cap_feat_dim=8,
    ).eval()  # fmt: skip
    scheduler = scheduler or FlowMatchEulerDiscreteScheduler()
    pipe = Lumina2Pipeline(
        transformer=transformer, scheduler=scheduler, vae=vae(**FLOW_VAE), text_encoder=None, tokenizer=None
    )
    mask = torch.ones(2, 5, dtype=torch.bool)

    def run(**settings):
        settings = {"guidance_scale": 4.0, "num_inference_steps": 5, "cfg_normalization": cfg_normalization} | settings
        return pipe(
            prompt_embeds=noise(1, 2, 5, 8), negative_prompt_embeds=noise(2, 2, 5, 8), prompt_attention_mask=mask,
            negative_prompt_attention_mask=mask, generator=generator(), output_type="latent", height=32, width=32,
            cfg_trunc_ratio=1.0, **settings,
        ).images  # fmt: skip

    return quiet(pipe), run


def ddpm(unet, scheduler=None):
    """An unconditional pipeline."""
    pipe = DDPMPipeline(unet, scheduler or DDPMScheduler())

    def run(**settings):
        images = pipe(batch_size=2, generator=generator(), output_type="np", num_inference_steps=4, **settings).images
        return torch.as_tensor(np.array(images))

    return quiet(pipe), run


def scheduler_of(name, **settings):
    return getattr(diffusers, name)(**settings)


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe
