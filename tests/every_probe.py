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
    return [probe for name in NAMED for probe in make(name)]
