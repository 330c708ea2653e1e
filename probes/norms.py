"""Magnitudes."""

from typing import Any, Literal

import torch

from probes.probe import Probe, Variable
from probes.step import GuidedStep


class Norm(Probe):
    """The l2 norm of a tensor over channel, height and width: vanishing or exploding guidance."""

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (Variable(f"{name}_norm", f"l2 norm of the {name}", f"|{name}|_2"),)

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        return {f"{self.name}_norm": step.norm(self.name).float()}, state
