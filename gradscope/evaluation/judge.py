"""Verdicts on the final samples: by the guide of each cell, and by a judge that guided none."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn

from gradscope.store import CELL_DIMS, add_variables, open_store

_BATCH = 256


def judge_store(path: Path, guides: Mapping[str, nn.Module], judge: nn.Module | None, device: torch.device) -> None:
    """Add predictions and accuracies to a store.

    ``own_prediction`` and ``own_accuracy`` by the cell's guide on the final images; ``judge_prediction`` and
    ``judge_accuracy`` likewise where there is a judge. Images are read cell by cell.
    """
    ds = open_store(path)
    label = ds["label"].values
    judges = {"own": guides} | ({} if judge is None else {"judge": dict.fromkeys(guides, judge)})
    about = {"own": "the cell's guide", "judge": "the independent judge"}
    added: dict[str, tuple] = {}
    for name, modules in judges.items():
        shape = tuple(ds.sizes[dim] for dim in CELL_DIMS)
        prediction = np.full((*shape, len(label)), -1, dtype=np.int16)
        for cell in np.ndindex(shape):
            images = ds["image"][cell]
            prediction[cell] = _predict(modules[str(ds["classifier"].values[cell[0]])], images, device)
        right = prediction == label
        added[f"{name}_prediction"] = (
            (*CELL_DIMS, "sample"),
            prediction,
            {
                "long_name": f"class of the final sample by {about[name]}",
                "units": "1",
                "equation": "argmax_k f(x_0)[k], -1 where there is no finite image",
            },
        )
        added[f"{name}_accuracy"] = (
            CELL_DIMS,
            right.mean(axis=-1),
            {
                "long_name": f"share of samples in which {about[name]} sees the target class",
                "units": "1",
                "equation": "mean(prediction == label)",
            },
        )
    add_variables(path, xr.Dataset(added))


def _predict(module: nn.Module, images: xr.DataArray, device: torch.device) -> np.ndarray:
    verdicts = []
    for first in range(0, images.sizes["sample"], _BATCH):
        batch = torch.from_numpy(images[first : first + _BATCH].values).to(device)
        with torch.no_grad():
            verdict = module(batch).argmax(dim=1)
        finite = torch.isfinite(batch).flatten(1).all(dim=1)
        verdicts.append(torch.where(finite, verdict, -1).to(torch.int16).cpu().numpy())
    return np.concatenate(verdicts)
