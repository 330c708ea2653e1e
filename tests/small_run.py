"""A run of small models by configuration, for tests that need processes of their own."""

import os
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier

SETTINGS = {
    "denoiser": "small_run:denoiser",
    "classifiers": {"robust": "small_run:robust"},
    "judge": "small_run:robust",
    "guidance": {"classifier_input": ["x_t", "x0"], "guidance_scale": [0.4]},
    "stabilizers": {"none": {}, "adam": {}},
    "sampling": {"num_inference_steps": 13, "samples": 6, "batch_size": 2},
    "probes": ["gradient", "update", "norms", "cosines", "strength", "belief"],
    "recording": {"path": "run.zarr", "codec": "none", "tensor_samples": 5},
}


def denoiser():
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET), DDPMScheduler()


def robust():
    torch.manual_seed(1)
    return LinearClassifier(gain=2.0)


def recorded_bytes(store: Path) -> dict[str, bytes]:
    """Every file of a store, without the metadata of its root."""
    found = {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}
    del found["zarr.json"]
    return found


def assert_sound(store: Path, reference: Path) -> float:
    """Plain xarray opens it without a warning, and what is marked is what the reference has; gives the share marked."""
    ds, whole = xr.open_zarr(store), xr.open_zarr(reference)
    written = ds["written"].values
    assert set(np.unique(written)) <= {0, 1, 3}
    for name in ds.attrs["recorded"]:
        if "timestep" in ds[name].dims and name != "written":
            marked = written >= (3 if "channel" in ds[name].dims else 1)
            assert ds[name].values[marked].tobytes() == whole[name].values[marked].tobytes(), name
    finished = (written > 0).all(axis=-1)
    assert ds["image"].values[finished].tobytes() == whole["image"].values[finished].tobytes()
    return float((written > 0).mean())


def environment() -> dict[str, str]:
    """Of a process that runs it: with the tests' modules, and one thread."""
    return os.environ | {"PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
