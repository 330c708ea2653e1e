"""What classifier-free guidance adds to a step: its scale, and the parts of its gradient."""

import torch

from probes.catalogue import CATALOGUE
from probes.numerics import norm_of_rows, rows, unit_rows
from probes.probe import Probe
from probes.step import GuidedStep


class GuidanceWeight(Probe):
    """The scale w of classifier-free guidance in u + w (c - u), at each step.

    Examples
    --------
    >>> x = torch.zeros(2, 1, 1, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x, gradient=x, guidance_weight=7.5)
    >>> GuidanceWeight().measure(step, None)
    ({'guidance_weight': tensor([7.5000, 7.5000])}, None)
    """

    needs = ("guidance_weight",)
    variables = (CATALOGUE["guidance_weight"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.guidance_weight is not None
        weight = torch.as_tensor(step.guidance_weight, dtype=torch.float32, device=step.x_t.device)
        return {"guidance_weight": weight.expand(len(step.x_t)).clone()}, state


class ConditionalParts(Probe):
    """Norms of the gradient's parts along and across the conditional prediction, and its relative size.

    The part along the conditional x0-hat saturates pictures (arXiv 2410.02416). The relative size tells how far the
    conditional prediction differs from the unconditional one: in half precision, a small one is mostly rounding.

    Examples
    --------
    >>> gradient, x_0 = torch.tensor([[[[3.0, 4.0]]]]), torch.tensor([[[[2.0, 0.0]]]])
    >>> step = GuidedStep(
    ...     step=0, timestep=999, x_t=x_0, gradient=gradient, conditional_original_sample=x_0, model_output=x_0,
    ...     conditional_output=1.5 * x_0,
    ... )
    >>> values, _ = ConditionalParts().measure(step, None)
    >>> values["gradient_parallel_norm"], values["gradient_perpendicular_norm"], values["prediction_change"]
    (tensor([3.]), tensor([4.]), tensor([0.5000]))
    """

    needs = ("gradient", "conditional_original_sample", "model_output", "conditional_output")
    variables = (
        CATALOGUE["gradient_parallel_norm"],
        CATALOGUE["gradient_perpendicular_norm"],
        CATALOGUE["prediction_change"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.conditional_original_sample is not None
        assert step.model_output is not None
        assert step.conditional_output is not None
        gradient, reference = step.rows("gradient"), rows(step.conditional_original_sample)
        unit = unit_rows(reference, norm_of_rows(reference))
        along = (gradient * unit).sum(dim=1)
        across = norm_of_rows(gradient - along[:, None] * unit)
        change = norm_of_rows(step.rows("conditional_output") - step.rows("model_output")) / step.norm("model_output")
        values = {
            "gradient_parallel_norm": along.abs(),
            "gradient_perpendicular_norm": across,
            "prediction_change": change,
        }
        return {name: value.float() for name, value in values.items()}, state
