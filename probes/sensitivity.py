"""How much the gradient changes when x_t changes a little."""

import torch

from probes.catalogue import CATALOGUE
from probes.numerics import norm_of_rows, undefined
from probes.probe import Probe
from probes.step import GuidedStep

State = tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None
"""Gradient, unit gradient and x_t of the previous step, as rows."""


class GradientLipschitz(Probe):
    """Difference quotient of the gradient along the trajectory, of raw and of unit gradients.

    The raw quotient, S_g of arXiv 2507.00687, scales with the gradient; the unit one does not.

    Examples
    --------
    >>> x = torch.ones(1, 1, 1, 2)
    >>> steps = [GuidedStep(step=i, timestep=999 - i, x_t=i * x, gradient=(3 + 4 * i) * x) for i in range(2)]
    >>> probe = GradientLipschitz()
    >>> _, state = probe.measure(steps[0], probe.init())
    >>> values, _ = probe.measure(steps[1], state)
    >>> values["gradient_lipschitz"]
    tensor([4.])
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
