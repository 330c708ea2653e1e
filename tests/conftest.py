"""Small models for all tests."""

from collections.abc import Iterator

import dask
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier

from gradscope.sampling.process import Schedule

# The models are tiny: more threads would be slower.
torch.set_num_threads(1)
# Threads of a pool keep the treatment of denormals from the time of their start.
dask.config.set(scheduler="synchronous")


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Undo the flushing of denormals, which a run on the CPU sets for the whole process."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def unet() -> UNet2DModel:
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET)


@pytest.fixture
def scheduler() -> DDPMScheduler:
    return DDPMScheduler()


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(DDPMScheduler(clip_sample_range=1.0), 10)


@pytest.fixture
def x_t() -> torch.Tensor:
    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def classifier() -> LinearClassifier:
    torch.manual_seed(1)
    return LinearClassifier(gain=3.0)
