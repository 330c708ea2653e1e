"""Small models for all tests."""

import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier

# The models are tiny: threads only get in each other's way.
torch.set_num_threads(1)


@pytest.fixture
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET)


@pytest.fixture
def scheduler() -> DDPMScheduler:
    return DDPMScheduler()


@pytest.fixture
def classifier() -> LinearClassifier:
    torch.manual_seed(1)
    return LinearClassifier(gain=3.0)
