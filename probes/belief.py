"""How the guide classifies its own input."""

import torch

from probes.catalogue import CATALOGUE
from probes.numerics import margin
from probes.probe import Probe
from probes.step import GuidedStep


class Belief(Probe):
    """The guide's margin and log-probability of the target class, its entropy and its predicted class.

    Examples
    --------
    >>> x = torch.zeros(1, 1, 2, 2)
    >>> logits, label = torch.tensor([[2.0, 0.0]]), torch.tensor([0])
    >>> step = GuidedStep(step=0, timestep=999, x_t=x, gradient=x, logits=logits, label=label)
    >>> values, _ = Belief().measure(step, None)
    >>> values["margin"], values["predicted_class"]
    (tensor([2.]), tensor([0], dtype=torch.int16))
    """

    needs = ("logits", "label")
    variables = (
        CATALOGUE["margin"],
        CATALOGUE["log_prob"],
        CATALOGUE["entropy"],
        CATALOGUE["predicted_class"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.logits is not None
        assert step.label is not None
        m = margin(step.logits, step.label)
        log_p = step.logits.double().log_softmax(dim=1)
        values = {
            "margin": m.float(),
            # Not log_p, which rounds to 0 at margins above 37.
            "log_prob": torch.nn.functional.logsigmoid(m).float(),
            "entropy": torch.special.entr(log_p.exp()).sum(dim=1).float(),
            "predicted_class": log_p.argmax(dim=1).to(torch.int16),
        }
        return values, state
