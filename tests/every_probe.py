"""One of every named probe, with its required options."""

from typing import Any

import torch
from small_models import LinearClassifier

from probes import NAMED, Probe


def make(name: str) -> list[Probe]:
    torch.manual_seed(7)
    needed: dict[str, dict[str, Any]] = {
        "reference": {"classifier": LinearClassifier()},
        "layers": {"names": ["classifier.linear", "unet.mid_block"]},
    }
    return NAMED[name](**needed.get(name, {}))


def every_probe() -> list[Probe]:
    """All that gradscope's sampler shows enough for: it guides by a gradient, not by a condition."""
    return [probe for name in NAMED if name != "classifier_free" for probe in make(name)]
