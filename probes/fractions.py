"""Shares of elements: clamped away, exactly zero, finite."""

import torch

from probes.catalogue import CATALOGUE
from probes.probe import Probe
from probes.step import GuidedStep

SOURCES = ("finite", "x_t", "denoiser", "guide", "gradient")
"""Where what is not finite appears first, by the numbers of `nonfinite_source`."""


class FiniteFraction(Probe):
    """Share of the gradient's elements that are finite, and where others come from.

    Below 1 the sample's step goes unguided. The source is the first that is not finite, in the order of a step: x_t
    itself, the denoiser's prediction, the guide's logits, and the gradient, where all of these are finite.
    """

    variables = (
        CATALOGUE["finite_fraction"],
        CATALOGUE["nonfinite_source"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        finite = torch.isfinite(step.gradient)
        source = torch.zeros(len(finite), dtype=torch.int8, device=finite.device)
        looks = (step.gradient, step.logits, step.model_output, step.x_t)
        for number, value in zip(range(4, 0, -1), looks, strict=True):
            if value is not None:
                source = source.where(torch.isfinite(value).flatten(1).all(dim=1), number)
        return {"finite_fraction": _share(finite), "nonfinite_source": source.to(torch.int8)}, state


class Fractions(Probe):
    """Shares of clamped elements of x0-hat, through which no x0 gradient passes, and of zeros in the gradient."""

    needs = ("gradient", "pred_original_sample")
    variables = (
        CATALOGUE["clipped_fraction"],
        CATALOGUE["zero_fraction"],
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.pred_original_sample is not None
        bound = torch.inf if step.clip_range is None else step.clip_range
        values = {
            "clipped_fraction": _share(step.pred_original_sample.abs() >= bound),
            "zero_fraction": _share(step.gradient == 0),
        }
        return values, state


def _share(mask: torch.Tensor) -> torch.Tensor:
    return mask.float().flatten(1).mean(dim=1)
