"""Held-out real images."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gradscope.config import DataConfig
from gradscope.data import datasets
from gradscope.errors import GradscopeError
from gradscope.evaluation.features import Features

_BATCH = 256


@dataclass(frozen=True)
class Real:
    """Features of two disjoint sets of held-out images, with their labels."""

    reference: NDArray[np.float64]
    """``(m, d)``: the images that samples are compared with."""
    reference_label: NDArray[np.int64]
    floor: NDArray[np.float64]
    """``(n, d)``: images in place of samples; their distance to the reference is the best that samples can reach."""
    floor_label: NDArray[np.int64]
    classes: tuple[str, ...]


def held_out(config: DataConfig, limit: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of images and labels: at most `limit` of the test split, in a fixed random order."""
    data = datasets.load(config, "test")
    chosen = np.random.default_rng(0).permutation(len(data))[:limit]
    for index in np.array_split(chosen, -(-len(chosen) // _BATCH)):
        images, labels = data.batch(index.tolist())
        yield images.to(device), labels.to(device)


def load_real(config: DataConfig, limit: int, samples: int, extractor: Features, image_shape: tuple[int, ...]) -> Real:
    """Features of held-out images: `samples` of them, or half of all, as the floor; the others as the reference.

    Raises
    ------
    GradscopeError
        The images cannot be loaded, have another shape, or there are fewer than four.
    """
    try:
        data = datasets.load(config, "test")
    except GradscopeError as error:
        raise GradscopeError(f"evaluation.{error}") from error
    shape = (config.channels, config.size, config.size)
    if shape != image_shape:
        got, wanted = (" x ".join(map(str, s)) for s in (shape, image_shape))
        raise GradscopeError(
            f"evaluation.data: its images are {got} (channel, height, width), but the samples {wanted}; change "
            "evaluation.data.size and .channels"
        )
    if len(data) < 4:
        raise GradscopeError(f"evaluation.data: at least 4 held-out images are needed, got {len(data)}")
    features, labels = [], []
    for images, label in held_out(config, limit, extractor.device):
        features.append(extractor.of([images]))
        labels.append(label.cpu().numpy())
    n = min(samples, sum(map(len, labels)) // 2)
    (floor, reference), (floor_label, reference_label) = (
        np.split(np.concatenate(parts), [n]) for parts in (features, labels)
    )
    return Real(reference, reference_label, floor, floor_label, data.classes)
