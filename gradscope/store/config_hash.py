"""A hash that is equal for two recordings of the same configuration."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_STORING = ("path", "durable")
"""Keys of ``recording`` that do not change what is recorded."""


def config_hash(configuration: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of the configuration as canonical JSON, the first 16 hex digits.

    Parameters
    ----------
    configuration
        The run's configuration; keys about storing and evaluating it are left out.
    scheduler
        The scheduler's settings; the configuration holds at most the name of the model that they come from.

    Examples
    --------
    >>> short, long = ({"sampling": {"seed": 0}, "recording": {"path": path}} for path in ("a.zarr", "runs/a.zarr"))
    >>> config_hash(short) == config_hash(long)
    True
    """
    content = {key: value for key, value in configuration.items() if key != "evaluation"}
    if isinstance(content.get("recording"), Mapping):
        content["recording"] = {k: v for k, v in content["recording"].items() if k not in _STORING}
    if scheduler is not None:
        content = {"configuration": content, "scheduler": scheduler}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
