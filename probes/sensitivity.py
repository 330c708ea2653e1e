"""How much the gradient changes where x_t changes a little."""

import torch

from probes.catalogue import CATALOGUE
from probes.numerics import norm_of_rows, undefined
from probes.probe import Probe
from probes.step import GuidedStep

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
"""Gradient, unit gradient and x_t of the previous step, as rows."""


class GradientLipschitz(Probe):
    """Difference quotient of the gradient along the trajectory, raw and on unit gradients.

    The raw quotient scales with the gradient; the unit one does not (S_g of arXiv 2507.00687 is the raw one).
    """

    needs = ("gradient", "x_t")
    variables = (
        CATALOGUE["gradient_lipschitz"],
        CATALOGUE["unit_gradient_lipschitz"],
    )

    def measure(self, step: GuidedStep, state: State) -> tuple[dict[str, torch.Tensor], State]:
        now = step.rows("gradient"), step.unit_rows("gradient"), step.rows("x_t")
        if state is None:
            raw = unit_wise = undefined(step.x_t)
        else:
            changes = (norm_of_rows(a - b) for a, b in zip(now, state, strict=True))
            gradient, unit_gradient, moved = changes
            raw, unit_wise = (gradient / moved).float(), (unit_gradient / moved).float()
        return {"gradient_lipschitz": raw, "unit_gradient_lipschitz": unit_wise}, now
