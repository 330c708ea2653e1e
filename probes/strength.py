"""How far guidance moves a step, against the step's own noise."""

import torch

from probes.numerics import undefined
from probes.probe import Probe, Variable
from probes.step import GuidedStep


class EffectiveStrength(Probe):
    """Norm of the shift over the norm of the step's noise: above 1 it leaves the manifold, below 1e-3 it is inert."""

    needs = ("shift", "sigma")
    variables = (
        Variable(
            "effective_strength",
            "shift relative to the noise of the DDPM posterior",
            "|shift|_2 / (sigma_t * sqrt(channel * height * width)), NaN where sigma_t is 0",
        ),
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.shift is not None
        assert step.sigma is not None
        if step.sigma == 0:
            return {"effective_strength": undefined(step.shift)}, state
        return {"effective_strength": (step.norm("shift") / (step.sigma * step.shift[0].numel() ** 0.5)).float()}, state
