"""What a store says of its origin."""

import hashlib
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

from gradscope.device import device_name
from gradscope.fingerprint import fingerprint
from gradscope.schedule import configuration_of

_PACKAGES = ("gradscope", "torch", "diffusers", "timm", "numpy", "zarr", "xarray")


def provenance(
    configuration: Mapping[str, Any],
    scheduler: Any,
    models: Mapping[str, nn.Module],
    classes: Sequence[str],
    device: torch.device,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Attributes of a store: identity, configuration, scheduler, versions, device, and every model's weights' hash.

    ``configuration_hash`` is that of the configuration and of the scheduler's own settings, see `fingerprint`.
    """
    settings = configuration_of(scheduler)
    return {
        "run_id": str(uuid.uuid4()),
        "configuration": json.dumps(configuration),
        "scheduler": json.dumps(settings),
        "configuration_hash": fingerprint(configuration, settings),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: metadata.version(name) for name in _PACKAGES} | {"python": platform.python_version()},
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "weights_sha256": weights(models),
        "classes": list(classes),
        "command": shlex.join(command),
    }


def weights(models: Mapping[str, nn.Module]) -> dict[str, str]:
    """The hash of the weights of each model."""
    return {name: state_hash(module) for name, module in models.items()}


def state_hash(module: nn.Module) -> str:
    """SHA-256 over the names and values of a module's parameters and buffers."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
