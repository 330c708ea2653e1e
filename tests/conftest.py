"""Small models for all tests."""

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, LinearClassifier

# The models are tiny: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(
        sample_size=SIZE,
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )


@pytest.fixture
def scheduler() -> DDPMScheduler:
    return DDPMScheduler()


@pytest.fixture
def classifier() -> LinearClassifier:
    torch.manual_seed(1)
    return LinearClassifier(gain=3.0)
