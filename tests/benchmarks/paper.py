"""Models of the paper's size (64 px) with random weights, for timing only."""

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
