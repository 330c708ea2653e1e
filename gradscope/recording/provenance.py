"""Attributes of a store that describe where it comes from."""

import json
import platform
import shlex
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import Any

import torch
from torch import nn

from gradscope.models.device import device_name
from gradscope.models.schedulers import configuration_of
from gradscope.models.weights import weights
from gradscope.store.config_hash import config_hash

_PACKAGES = ("gradscope", "torch", "diffusers", "timm", "numpy", "zarr", "xarray")


def provenance(
    configuration: Mapping[str, Any],
    scheduler: Any,
    models: Mapping[str, nn.Module],
    classes: Sequence[str],
    device: torch.device,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Attributes of a store: identity, configuration, scheduler, versions, device, and a hash of every model's weights.

    ``configuration_hash`` covers the configuration and the scheduler's settings, see `config_hash`.
    """
    settings = configuration_of(scheduler)
    return {
        "configuration": json.dumps(configuration),
        "scheduler": json.dumps(settings),
        "configuration_hash": config_hash(configuration, settings),
    } | origin(models, classes, device, command)


def origin(
    models: Mapping[str, nn.Module], classes: Sequence[str], device: torch.device, command: Sequence[str] = ()
) -> dict[str, Any]:
    """Attributes that describe where a store comes from, without a configuration."""
    return {
        "run_id": str(uuid.uuid4()),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "weights_sha256": weights(models),
        "classes": list(classes),
        "command": shlex.join(command),
    }
