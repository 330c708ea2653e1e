"""Full tensors, as they are in the step."""

from typing import Any, Literal

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep

_ABOUT = {
    "gradient": ("gradient of the guide's objective with respect to x_t", "g_t = grad_{x_t} log p(y | c(x_t))"),
    "update": ("gradient after the stabiliser", "u_t = stabilizer(g_t)"),
    "direction": ("update after normalisation", "u_t / |u_t|_2 or u_t"),
    "x_t": ("noisy sample before the step", "x_t"),
    "pred_original_sample": (
        "predicted clean sample x0-hat",
        "(x_t - sqrt(1 - alphas_cumprod) * model_output) / sqrt(alphas_cumprod), clamped where the scheduler clips",
    ),
}


class Tensor(Probe):
    """One image tensor of the step, by its field name."""

    def __init__(self, name: Literal["gradient", "update", "direction", "x_t", "pred_original_sample"]) -> None:
        if name not in _ABOUT:
            raise ValueError(f"no tensor {name!r} in a step; one of: {', '.join(_ABOUT)}")
        self.name = name
        self.needs = (name,)
        long_name, equation = _ABOUT[name]
        self.variables = (CATALOGUE[name],)

    def measure(self, step: GuidedStep, state: Any) -> tuple[dict[str, torch.Tensor], Any]:
        return {self.name: getattr(step, self.name)}, state
