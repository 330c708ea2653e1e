"""Shares of elements: finite, clamped, exactly zero."""

import math

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep

SOURCES = ("finite", "x_t", "denoiser", "guide", "gradient")
"""Where a value that is not finite appears first; the index is the value of `nonfinite_source`."""


class FiniteFraction(Probe):
    """Share of the gradient's elements that are finite, and the source of values that are not.

    If the share is below 1, the sample's step is unguided. The source is the first value that is not finite, in the
    order of a step: x_t, the denoiser's prediction, the guide's output, the gradient.

    Examples
    --------
    >>> gradient = torch.tensor([[[[1.0, torch.nan]]]])
    >>> step = GuidedStep(step=0, timestep=999, x_t=torch.zeros(1, 1, 1, 2), gradient=gradient)
    >>> values, _ = FiniteFraction().measure(step, None)
    >>> values["finite_fraction"], SOURCES[values["nonfinite_source"]]
    (tensor([0.5000]), 'gradient')
    """

    variables = (
        CATALOGUE["finite_fraction"],
        CATALOGUE["nonfinite_source"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        finite = torch.isfinite(step.gradient)
        source = torch.zeros(len(finite), dtype=torch.int8, device=finite.device)
        output = step.energy if step.logits is None else step.logits
        looks = (step.gradient, output, step.model_output, step.x_t)
        for number, value in zip(range(4, 0, -1), looks, strict=True):
            if value is not None:
                source = source.where(torch.isfinite(value).reshape(len(value), -1).all(dim=1), number)
        return {"finite_fraction": _share(finite), "nonfinite_source": source.to(torch.int8)}, state


class Fractions(Probe):
    """Shares of clamped elements of x0-hat, through which no x0 gradient passes, and of zeros in the gradient.

    Examples
    --------
    >>> x_0, gradient = torch.tensor([[[[1.0, 0.5]]]]), torch.zeros(1, 1, 1, 2)
    >>> step = GuidedStep(
    ...     step=0, timestep=999, x_t=x_0, gradient=gradient, pred_original_sample=x_0, clip_range=1.0
    ... )
    >>> values, _ = Fractions().measure(step, None)
    >>> values["clipped_fraction"], values["zero_fraction"]
    (tensor([0.5000]), tensor([1.]))
    """

    needs = ("gradient", "pred_original_sample")
    variables = (
        CATALOGUE["clipped_fraction"],
        CATALOGUE["zero_fraction"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.pred_original_sample is not None
        bound = torch.inf if step.clip_range is None else step.clip_range
        clipped = _share(step.pred_original_sample.abs() >= bound)
        values = {
            "clipped_fraction": torch.full_like(clipped, torch.nan) if math.isnan(bound) else clipped,
            "zero_fraction": _share(step.gradient == 0),
        }
        return values, state


def _share(mask: torch.Tensor) -> torch.Tensor:
    return mask.float().flatten(1).mean(dim=1)
