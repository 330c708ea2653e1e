"""Magnitudes."""

from typing import Any, Literal

import torch

from probes.catalogue import norm_of, row
from probes.probe import Probe
from probes.step import GuidedStep


class Norm(Probe):
    """The l2 norm of a tensor over channel, height and width: vanishing or exploding guidance."""

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (row(norm_of(name)),)

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        return {f"{self.name}_norm": step.norm(self.name).float()}, state
