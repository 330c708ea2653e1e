"""A run of small models by configuration, for tests that start processes."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from diffusers import DDPMScheduler, UNet2DModel
from small_models import SIZE, UNET, LinearClassifier

from gradscope.config import RunConfig, check
from gradscope.store import open_store
from probes import Probe

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
BLOCKS = 12


def config(path: Path | str, **changes: Any) -> RunConfig:
    """The run with another store and other settings; a change of a section may give some of its keys."""
    content = SETTINGS | {"recording": SETTINGS["recording"] | {"path": str(path)}}
    for key, change in changes.items():
        content[key] = content[key] | change if isinstance(change, dict) else change
    return check(RunConfig, content, "test")


def denoiser():
    torch.manual_seed(0)
    return UNet2DModel(sample_size=SIZE, **UNET), DDPMScheduler()


_robust_seed = 1


def robust():
    torch.manual_seed(_robust_seed)
    return LinearClassifier(gain=2.0)


def draw_robust_from(seed: int) -> None:
    """Give the guide other weights in this process, as after another training."""
    global _robust_seed
    _robust_seed = seed


class Failing(Probe):
    """A probe that measures nothing and raises an error after `left` steps."""

    left = math.inf

    def measure(self, step, state):
        Failing.left -= 1
        if Failing.left < 0:
            raise RuntimeError("my own mistake")
        return {}, state


def recorded_bytes(store: Path) -> dict[str, bytes]:
    """Content of every file of a store, except for the metadata of its root."""
    found = {str(file.relative_to(store)): file.read_bytes() for file in store.rglob("*") if file.is_file()}
    del found["zarr.json"]
    return found


def assert_same_recording(*stores: Path) -> None:
    """Check that all files are the same, except for those of an evaluation."""
    ours, theirs = (
        {name: content for name, content in recorded_bytes(store).items() if name.split("/")[0] not in judged}
        for store in stores
        for judged in [json.loads(open_store(store).attrs.get("evaluation", "{}")).get("variables", [])]
    )
    assert ours == theirs


def assert_sound(store: Path, reference: Path) -> float:
    """Check with plain xarray that marked values equal those of a reference; return the share that is marked."""
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
    """Environment of a process that runs it: the tests' modules on the path, one thread."""
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def another_judge():
    """A judge that differs from every guide."""
    torch.manual_seed(99)
    return LinearClassifier()


def robust_by_another_name():
    torch.manual_seed(1)
    return LinearClassifier(gain=2.0)
