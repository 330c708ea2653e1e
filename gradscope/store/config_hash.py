"""The hash by which two recordings are known to be of the same thing."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_STORING = ("path", "durable")
"""Keys of ``recording`` that say how a run is stored and not what is recorded."""


def config_hash(configuration: Mapping[str, Any], scheduler: Mapping[str, Any] | None = None) -> str:
    """SHA-256 of what is recorded, as canonical JSON; 16 hex digits.

    Parameters
    ----------
    configuration
        Of the run; how it is stored and evaluated does not enter.
    scheduler
        The scheduler's own settings, which the configuration names at most by their place.
    """
    content = {key: value for key, value in configuration.items() if key != "evaluation"}
    if isinstance(content.get("recording"), Mapping):
        content["recording"] = {k: v for k, v in content["recording"].items() if k not in _STORING}
    if scheduler is not None:
        content = {"configuration": content, "scheduler": scheduler}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
