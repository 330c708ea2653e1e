"""The value of the guide's objective."""

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep


class ObjectiveValue(Probe):
    """The guide's objective at each step: log p or logit of a classifier, the value of an energy, or a sum of these.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 2, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x, gradient=x, energy=torch.tensor([-1.5]))
    >>> ObjectiveValue().measure(step, None)
    ({'energy': tensor([-1.5000])}, None)
    """

    needs = ("energy",)
    variables = (CATALOGUE["energy"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.energy is not None
        return {"energy": step.energy.float()}, state
