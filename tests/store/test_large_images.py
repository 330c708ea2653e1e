"""Chunks stay small for any image and block, and `verify` also reads the larger ones of older stores."""

import numpy as np
import pytest
import torch

import gradscope
from gradscope.recording.make_schema import make_schema
from gradscope.recording.recorder import Recorder
from gradscope.store import Grid, schema
from gradscope.verification.verify import verify
from probes import GuidedStep, Norm, Tensor


def grid(samples: int, size: int, batch_size: int | None = None) -> Grid:
    return Grid(
        ("mine",), ("x_t",), ("none",), (1.0,), np.zeros(samples, int), np.arange(samples), timestep=np.array([0]),
        alphas_cumprod=np.ones(1), sigma=np.ones(1), sample_shape=(3, size, size), batch_size=batch_size or samples,
    )  # fmt: skip


@pytest.mark.parametrize("size", [8, 32, 64, 512, 2400])
@pytest.mark.parametrize("samples", [1, 7, 32, 64, 384])
@pytest.mark.parametrize("batch_size", [1, 6, 32, 384])
def test_chunks_of_images_stay_near_4_mb_and_within_a_block(size, samples, batch_size):
    made = make_schema(grid(samples, size, batch_size), [Tensor("gradient")])
    for array in (*made.finals, *made.tensors):
        chunk = made.chunks(array)
        one = 12 * size**2
        assert made.grid.block % chunk[4] == 0
        assert np.prod(chunk) * 4 <= max(4 * 2**20, one)
        assert chunk[5:][-3:] == (3, size, size)


def record(path, samples: int, size: int) -> np.ndarray:
    images = np.random.default_rng(0).normal(size=(samples, 3, size, size)).astype(np.float32)
    with Recorder(path, grid(samples, size), [Norm("gradient")], device=torch.device("cpu")) as recorder:
        x = torch.from_numpy(images)
        recorder.trajectory((0, 0, 0, 0), 0)(GuidedStep(step=0, timestep=0, x_t=x, gradient=x, prev_sample=x))
    return images


@pytest.mark.slow
def test_32_samples_of_512_pixels_are_sound(tmp_path):
    """One chunk per block had 100 MB. Earlier, `verify` read 64 MB of it and called it damaged."""
    images = record(tmp_path / "a.zarr", 32, 512)
    found = verify(tmp_path / "a.zarr")
    assert found.findings == ()
    np.testing.assert_array_equal(gradscope.open(tmp_path / "a.zarr")["image"].values.reshape(images.shape), images)


@pytest.mark.slow
def test_an_older_store_with_one_chunk_per_block_is_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_CHUNK_BYTES", 2**30)
    record(tmp_path / "a.zarr", 32, 512)
    assert (tmp_path / "a.zarr" / "image" / "c.0.0.0.0.0.0.0.0").stat().st_size > 100e6
    assert verify(tmp_path / "a.zarr").findings == ()
