"""A U-Net of diffusers for signals, (channel, time)."""

import torch
from diffusers import DDIMScheduler, UNet1DModel
from torch import nn

from gradscope import ClassifierGuidance, GuidedSampler

LABELS = [0, 2, 1]


def test_a_unet_of_signals_is_guided_as_by_plain_autograd():
    torch.manual_seed(0)
    unet = UNet1DModel(
        sample_size=32, in_channels=3, out_channels=3, down_block_types=("DownResnetBlock1D", "DownResnetBlock1D"),
        up_block_types=("UpResnetBlock1D",), mid_block_type="MidResTemporalBlock1D", out_block_type="OutConv1DBlock",
        block_out_channels=(8, 16), norm_num_groups=8, use_timestep_embedding=True, time_embedding_type="positional",
        flip_sin_to_cos=False, freq_shift=1, act_fn="mish",
    ).eval()  # fmt: skip
    guide = nn.Sequential(nn.Flatten(), nn.Linear(96, 3))
    sampler = GuidedSampler(unet, DDIMScheduler(clip_sample=False), ClassifierGuidance(guide, "x0", 0.3))
    assert sampler.sample_shape == (3, 32)
    step = list(sampler.steps(LABELS, 4))[2]
    x = step.x_t.clone().requires_grad_()
    a = step.alphas_cumprod
    x_0 = (x - (1 - a) ** 0.5 * unet(x, torch.full((3,), step.timestep)).sample) / a**0.5
    log_p = guide(x_0).log_softmax(dim=1)[range(3), LABELS]
    (expected,) = torch.autograd.grad(log_p.sum(), x)
    torch.testing.assert_close(step.gradient.float(), expected, rtol=1e-3, atol=1e-6)
