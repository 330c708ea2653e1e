"""Norms of tensors."""

from typing import Any, Literal

import torch

from probes.catalogue import norm_of, row
from probes.probe import Probe
from probes.step import GuidedStep


class Norm(Probe):
    """The l2 norm of each sample of a tensor: shows vanishing or exploding guidance.

    Examples
    --------
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(2, 1, 2, 2), gradient=torch.ones(2, 1, 2, 2))
    >>> values, _ = Norm("gradient").measure(step, None)
    >>> values["gradient_norm"]
    tensor([2., 2.])
    """

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (row(norm_of(name)),)

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        return {f"{self.name}_norm": step.norm(self.name).float()}, state
