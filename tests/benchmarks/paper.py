"""Models with random weights, for timing only: of the paper's size (64 px), and tiny ones."""

import timm
import torch
from diffusers import DDPMScheduler, UNet2DModel
from torch import nn


def denoiser() -> tuple[UNet2DModel, DDPMScheduler]:
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=64,
        block_out_channels=(128, 128, 256, 256, 512),
        down_block_types=("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=2,
    )
    return unet, DDPMScheduler()


def classifier() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model("resnet18", num_classes=4)


def tiny_denoiser() -> tuple[UNet2DModel, DDPMScheduler]:
    """One that shows within seconds whether a benchmark runs."""
    torch.manual_seed(0)
    unet = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    return unet, DDPMScheduler()


def tiny_classifier() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 7 * 7, 4))
