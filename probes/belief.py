"""What the guide believes of its own input."""

import torch

from probes.probe import Probe, Variable
from probes.step import GuidedStep


class Belief(Probe):
    """The guide's log-probability of the target class, its entropy and its predicted class."""

    needs = ("logits", "label")
    variables = (
        Variable("log_prob", "guide's log-probability of the target class", "log softmax(f(c))[y]", units="nat"),
        Variable("entropy", "entropy of the guide's prediction", "-sum_k p_k log p_k", units="nat"),
        Variable("predicted_class", "class that the guide predicts", "argmax_k f(c)[k]", dtype="int16"),
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.logits is not None
        assert step.label is not None
        log_p = step.logits.double().log_softmax(dim=1)  # a certain guide has log p near -1e-9
        values = {
            "log_prob": log_p.gather(1, step.label[:, None])[:, 0].float(),
            "entropy": torch.special.entr(log_p.exp()).sum(dim=1).float(),
            "predicted_class": log_p.argmax(dim=1).to(torch.int16),
        }
        return values, state
