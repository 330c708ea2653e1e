"""How much the gradient changes where x_t changes a little."""

import torch

from probes.numerics import norm, undefined, unit
from probes.probe import Probe, Variable
from probes.step import GuidedStep

State = tuple[torch.Tensor, torch.Tensor] | None


class GradientLipschitz(Probe):
    """Difference quotient of the gradient along the trajectory, raw and on unit gradients.

    The raw quotient scales with the gradient; the unit one does not (S_g of arXiv 2507.00687 is the raw one).
    """

    needs = ("gradient", "x_t")
    variables = (
        Variable(
            "gradient_lipschitz",
            "difference quotient of the gradient over successive steps",
            "|g_t - g_prev|_2 / |x_t - x_prev|_2",
        ),
        Variable(
            "unit_gradient_lipschitz",
            "difference quotient of the unit gradient over successive steps",
            "|g_t/|g_t| - g_prev/|g_prev||_2 / |x_t - x_prev|_2",
        ),
    )

    def measure(self, step: GuidedStep, state: State) -> tuple[dict[str, torch.Tensor], State]:
        if state is None:
            raw = unit_wise = undefined(step.gradient)
        else:
            gradient, x_t = state
            moved = norm(step.x_t - x_t)
            raw = norm(step.gradient - gradient) / moved
            unit_wise = norm(unit(step.gradient) - unit(gradient)) / moved
        return {"gradient_lipschitz": raw, "unit_gradient_lipschitz": unit_wise}, (step.gradient, step.x_t)
