"""Hashes of models' weights."""

import hashlib
from collections.abc import Mapping

import torch
from torch import nn


def weights(models: Mapping[str, nn.Module]) -> dict[str, str]:
    """Hash of each model's weights, by name."""
    return {name: state_hash(module) for name, module in models.items()}


def state_hash(module: nn.Module) -> str:
    """SHA-256 over the names and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
