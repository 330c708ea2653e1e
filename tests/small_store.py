"""A small evaluated store with two guides, one of which follows white noise, x0, adam and an unguided control."""

import json
import warnings
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import xarray as xr

from gradscope.analysis.synthetic import trajectories
from gradscope.intervals import wilson
from gradscope.store import CELL_DIMS

CELLS = {
    "classifier": ["robust", "non_robust"],
    "classifier_input": ["x_t", "x0"],
    "stabilizer": ["none", "adam"],
    "guidance_scale": [0.0, 0.5],
}
SHAPE = (2, 2, 2, 2)
SAMPLES, TIMESTEPS, TENSORS = 16, 10, 4
CLASSES = ["baseball", "basketball", "soccer ball", "volleyball"]
GOOD = {"classifier": "robust", "classifier_input": "x_t", "stabilizer": "none", "guidance_scale": 0.5}
BAD = GOOD | {"classifier": "non_robust"}
ATTRIBUTES = {
    "schema_version": 1,
    "run_id": "5f0c",
    "configuration": json.dumps({"judge": "none"}),
    "configuration_hash": "abcd",
    "scheduler": json.dumps({"num_train_timesteps": 2000}),  # close enough that ten timesteps can be compared
    "versions": {"gradscope": "0.1.0"},
    "command": "gradscope record --config both.yaml",
    "status": "complete",
    "classes": CLASSES,
}


def recorded() -> xr.Dataset:
    """A store without an evaluation; the first `TENSORS` samples have tensors."""
    return _recorded().copy(deep=True)


def evaluated() -> xr.Dataset:
    """The store with made-up verdicts and distances, named as by `gradscope evaluate`."""
    return _evaluated().copy(deep=True)


@cache
def _recorded() -> xr.Dataset:
    parts = []
    for i, cell in enumerate(product(*CELLS.values())):
        fault = "white_noise" if cell[0] == "non_robust" else "none"
        part = trajectories(fault, SAMPLES, TIMESTEPS, seed=i, cosine=0.9)
        parts.append(part.assign_coords({dim: [value] for dim, value in zip(CELL_DIMS, cell, strict=True)}))
    ds = xr.combine_by_coords(parts, combine_attrs="override", join="outer", data_vars="all")
    ds = ds.sel({dim: values for dim, values in CELLS.items()})
    judged = ["own_prediction", "judge_prediction", "coverage", "coverage_interval", "coverage_floor", "bound"]
    ds = ds.drop_vars(judged)
    ds = ds.assign_coords(sample=np.arange(SAMPLES)).assign_attrs(ATTRIBUTES)
    ds["written"] = ds["written"].where(ds["sample"] < TENSORS, 1).astype(np.uint8)
    for name in ("gradient", "update", "x_t", "pred_original_sample"):
        ds[name] = ds[name].where(ds["written"] >= 3)
    ds["image"] = ds["x_t"].isel(timestep=-1)
    return ds


@cache
def _evaluated() -> xr.Dataset:
    ds = recorded()
    rng = np.random.default_rng(0)
    label = ds["label"].values
    chance = np.where(np.arange(16).reshape(SHAPE) < 8, 0.8, 0.2)[..., None]
    verdicts = {
        f"{who}_prediction": np.where(rng.random((*SHAPE, SAMPLES)) < p, label, (label + 1) % 4)
        for who, p in {"own": 0.9, "judge": chance}.items()
    }
    verdicts["judge_prediction"][0, 0, 0, 0, 3] = -1
    for name, values in verdicts.items():
        ds[name] = ((*CELL_DIMS, "sample"), values.astype(np.int16))
    counts = np.zeros((*SHAPE, 4, 4), dtype=np.int32)
    for at in np.ndindex(SHAPE):
        for target, seen in zip(label, verdicts["judge_prediction"][at], strict=True):
            if seen >= 0:
                counts[at][target, seen] += 1
    ds = ds.assign_coords({"class": CLASSES, "judge_class": CLASSES, "bound": ["low", "high"]})
    ds["confusion"] = ((*CELL_DIMS, "class", "judge_class"), counts)
    values = {"transfer_ratio": 1.0, "fd_extractor": 5.0, "kd_extractor": 0.1, "coverage": 0.7, "recall": 0.9}
    for name, about in values.items():
        value = about * rng.uniform(0.5, 1, SHAPE)
        ds[name] = (CELL_DIMS, value)
        ds[f"{name}_interval"] = ((*CELL_DIMS, "bound"), np.stack([0.9 * value, 1.1 * value], axis=-1))
    ds["transfer_ratio"][0, 0, 0, 0] = np.nan
    for name in ("fd_extractor", "kd_extractor"):
        apart = 0.02 * values[name] * rng.normal(size=(*SHAPE, 50))
        ds[f"{name}_replicates"] = ((*CELL_DIMS, "replicate"), ds[name].values[..., None] + apart)
    ds["fd_extractor_floor"], ds["coverage_floor"] = 0.3, 0.95
    about = {
        "N": SAMPLES,
        "distances": ["fd_extractor", "kd_extractor"],
        "excluded": {"unfinished": 0, "not_finite": 1},
    }
    return ds.assign_attrs(evaluation=json.dumps(about))


def of_points(ds: xr.Dataset) -> xr.Dataset:
    """The same store of samples that are points: two channels of one pixel are their axes."""
    points = ds.isel(channel=slice(2), height=0, width=0, drop=True).rename(channel="axis")
    return points.assign_attrs(sample_dims=["axis"])


def save(ds: xr.Dataset, path: Path) -> Path:
    """Write it to disk, without zarr's warnings about the way xarray writes."""
    names = {name: ds[name].astype(object) for name in ds.coords if ds[name].dtype.kind == "U"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.assign_coords(names).to_zarr(path)
    return path


def accuracy(ds: xr.Dataset, who: str, at: tuple[int, ...]) -> tuple[float, float, float]:
    """Share and Wilson's bounds by a loop over finished samples, for one cell."""
    seen, label, written = ds[f"{who}_prediction"].values[at], ds["label"].values, ds["written"].values[at]
    rows = [i for i in range(SAMPLES) if seen[i] >= 0 and (written[i] > 0).all()]
    right = sum(int(seen[i] == label[i]) for i in rows)
    low, high = wilson(right, len(rows))
    return right / len(rows), float(low), float(high)
