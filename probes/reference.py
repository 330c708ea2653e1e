"""Whether another classifier pulls the same way."""

from torch import Tensor, nn

from probes.catalogue import CATALOGUE
from probes.differentiation import gradient
from probes.numerics import cosine, margin
from probes.probe import Probe
from probes.step import GuidedStep


class ReferenceCosine(Probe):
    """Cosine of the gradient with that of a reference classifier, which sees x_t itself: take one that knows noise.

    Parameters
    ----------
    classifier
        Images ``(n, channel, height, width)`` -> logits ``(n, classes)``, of the same classes and on the same device as
        the guide. It is put into evaluation mode.
    """

    needs = ("gradient", "label")
    variables = (CATALOGUE["reference_cosine"],)

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier = classifier.eval()

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        assert step.label is not None
        reference = gradient(self._margin, step.x_t, step.label)
        return {"reference_cosine": cosine(step.gradient, reference)}, state

    def _margin(self, x: Tensor, label: Tensor) -> Tensor:
        """Its gradient points where that of log p does, and does not round where the reference is convinced."""
        return margin(self.classifier(x), label)
