"""Compare the gradient with that of another classifier."""

from functools import partial

from torch import Tensor, nn

from probes.catalogue import CATALOGUE
from probes.differentiation import gradient
from probes.numerics import cosine, margin
from probes.probe import Probe
from probes.step import GuidedStep
from probes.timed import ask


class ReferenceCosine(Probe):
    """Cosine of the gradient with the gradient of a reference classifier at x_t; use one that was trained on noise.

    Parameters
    ----------
    classifier
        Maps samples ``(n, *sample)`` to logits ``(n, classes)``. It must have the guide's classes and be on its device.
        It is set to evaluation mode. A noise-aware one, f(x, t), gets the step's timestep.

    Examples
    --------
    >>> import torch
    >>> classifier = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False))
    >>> _ = classifier[1].weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    >>> gradient, label = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([0])
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(1, 1, 1, 2), gradient=gradient, label=label)
    >>> values, _ = ReferenceCosine(classifier).measure(step, None)
    >>> values["reference_cosine"]
    tensor([0.6000])
    """

    needs = ("gradient", "label")
    of_guide = True
    variables = (CATALOGUE["reference_cosine"],)

    def __init__(self, classifier: nn.Module) -> None:
        self.classifier = classifier.eval()

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        assert step.label is not None
        # The models' input is x_t times a number, so the gradient has the same direction.
        seen = step.x_t if step.model_input is None else step.model_input
        reference = gradient(partial(self._margin, step.timestep), seen, step.label)
        return {"reference_cosine": cosine(step.gradient, reference)}, state

    def _margin(self, timestep: float, x: Tensor, label: Tensor) -> Tensor:
        """Its gradient has the direction of log p's, and does not round to 0 for a saturated reference."""
        return margin(ask(self.classifier, x, timestep), label)
