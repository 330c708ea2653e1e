"""Full tensors of a step."""

from typing import Any, Literal

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep

_NAMES = ("gradient", "update", "direction", "x_t", "pred_original_sample")


class Tensor(Probe):
    """One tensor of the step, by the name of its field.

    Examples
    --------
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(1, 1, 1, 2), gradient=torch.ones(1, 1, 1, 2))
    >>> Tensor("gradient").measure(step, None)
    ({'gradient': tensor([[[[1., 1.]]]])}, None)
    """

    def __init__(self, name: Literal["gradient", "update", "direction", "x_t", "pred_original_sample"]) -> None:
        if name not in _NAMES:
            raise ValueError(f"no tensor {name!r} in a step; one of: {', '.join(_NAMES)}")
        self.name = name
        self.needs = (name,)
        self.variables = (CATALOGUE[name],)

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        return {self.name: getattr(step, self.name)}, state
