"""A recorded and evaluated store of a few values, so that each byte of it can be damaged."""

import json
from pathlib import Path

import numpy as np
import xarray as xr

from gradscope.store import CELL_DIMS, Array, Frame, Grid, Schema, StoreWriter, add_variables, create, set_attributes
from gradscope.store.config_hash import config_hash

ABOUT = {"long_name": "something", "units": "1"}
SAMPLES, TIMESTEPS, SHAPE = 2, 2, (1, 2, 2)
IMAGE = ("channel", "height", "width")
KINDS = {"plain": {}, "lz4": {"codec": "lz4"}, "sharded": {"sharded": True}, "half": {"dtype": "float16"}}
"""How tensors are stored; all else is the same."""


def schema(kind: str = "plain") -> Schema:
    """The arrays of the store."""
    settings = dict(KINDS[kind])
    dtype = settings.pop("dtype", "float32")
    grid = Grid(
        classifier=("a",), classifier_input=("x_t",), stabilizer=("none",), guidance_scale=(0.5,),
        label=np.arange(SAMPLES), seed=np.arange(SAMPLES) + 7, timestep=np.array([5, 3]),
        alphas_cumprod=np.array([0.25, 0.75]), sigma=np.array([0.5, 0.0]), sample_shape=SHAPE, batch_size=1,
    )  # fmt: skip
    half = [Array("gradient_exponent", "scalar", ABOUT, "int16")] * (dtype == "float16")
    arrays = (
        Array("gradient", "tensor", ABOUT, dtype, IMAGE),
        *half,
        Array("gradient_norm", "scalar", ABOUT),
        Array("finite_fraction", "scalar", ABOUT),
        Array("predicted_class", "scalar", ABOUT, "int16"),
        Array("image", "final", ABOUT, dims=IMAGE),
    )
    return Schema(grid, arrays, SAMPLES, **settings)


def make(path: Path, kind: str = "plain") -> Path:
    """Record two blocks of one sample, two steps each, and evaluate them."""
    recorded = schema(kind)
    configuration = {"judge": "none", "recording": {"tensor_samples": SAMPLES, "tensor_every": 1}}
    about = {
        "configuration": json.dumps(configuration),
        "configuration_hash": config_hash(configuration, None),
        "classes": ["b", "c"],
        "run_id": "5f0c",
        "command": "gradscope record",
    }
    create(path, recorded, about | {"status": "recording"})
    writer = StoreWriter(path, recorded)
    rng = np.random.default_rng(0)
    for sample in range(SAMPLES):
        for step in range(TIMESTEPS):
            writer.submit(Frame((0, 0, 0, 0), sample, step, _values(rng, step, recorded.arrays[0].dtype)))
    writer.close()
    set_attributes(path, {"status": "complete"})
    seen = xr.Dataset(
        {
            "own_prediction": ((*CELL_DIMS, "sample"), np.array([0, 1], "int16").reshape(1, 1, 1, 1, -1), ABOUT),
            "own_accuracy": (CELL_DIMS, np.ones((1, 1, 1, 1)), ABOUT),
        },
        coords={"class": ("class", np.array(["b", "c"], dtype=object), ABOUT)},
    )
    said = {"judge": "none", "variables": sorted(map(str, seen.variables))}
    add_variables(path, seen.assign_attrs(evaluation=json.dumps(said)))
    return path


def _values(rng: np.random.Generator, step: int, dtype: str) -> dict[str, np.ndarray]:
    """The arrays of one step of one sample."""
    gradient = rng.normal(size=(1, *SHAPE)).astype(np.float32)
    exponent = np.frexp(np.abs(gradient).max())[1]
    values = {
        "gradient": gradient,
        "gradient_norm": np.linalg.norm(gradient.astype(float)).astype("float32")[None],
        "finite_fraction": np.ones(1, "float32"),
        "predicted_class": rng.integers(0, 2, 1).astype("int16"),
    }
    if dtype == "float16":
        values["gradient"] = np.ldexp(gradient, -exponent).astype("float16")
        values["gradient_exponent"] = np.array([exponent], "int16")
    if step == TIMESTEPS - 1:
        values["image"] = rng.normal(size=(1, *SHAPE)).astype("float32")
    return values
