"""Small models for all tests.

Large modules are imported where they are used: pytest-xdist's first process starts the workers and runs no test.
"""

import gc
from collections.abc import Iterator

import pytest

# Loading all modules leaves no garbage, but the search for it would take a third of the time.
USUAL = gc.get_threshold()
gc.disable()
RARE = 20_000
"""Number of new objects after which the tests search for garbage."""


def pytest_collection_finish() -> None:
    """Prepare this process for the tests that it has collected."""
    import dask
    import torch

    # The models are tiny: more threads would be slower.
    torch.set_num_threads(1)
    # Threads of a pool keep the treatment of denormals from the time of their start.
    dask.config.set(scheduler="synchronous")
    gc.freeze()  # garbage is searched for among the objects of the tests alone
    gc.set_threshold(RARE)
    gc.enable()


def pytest_unconfigure() -> None:
    """Let the interpreter end as usual: it frees all modules."""
    gc.unfreeze()


@pytest.fixture
def usual_garbage() -> Iterator[None]:
    """Search for garbage as often as a user's process does, where a test measures memory."""
    gc.set_threshold(*USUAL)
    yield
    gc.set_threshold(RARE)


@pytest.fixture(autouse=True)
def _denormals() -> Iterator[None]:
    """Undo the flushing of denormals, which a run on the CPU sets for the whole process."""
    import torch

    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def unet():
    import torch
    from diffusers import UNet2DModel
    from small_models import SIZE, UNET

    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET)


@pytest.fixture
def scheduler():
    from diffusers import DDPMScheduler

    return DDPMScheduler()


@pytest.fixture
def schedule():
    from diffusers import DDPMScheduler

    from gradscope.sampling.process import Schedule

    return Schedule(DDPMScheduler(clip_sample_range=1.0), 10)


@pytest.fixture
def x_t():
    import torch
    from small_models import SIZE

    return torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def classifier():
    import torch
    from small_models import LinearClassifier

    torch.manual_seed(1)
    return LinearClassifier(gain=3.0)
