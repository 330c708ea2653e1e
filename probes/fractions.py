"""Shares of elements: clamped away, exactly zero, finite."""

import torch

from probes.probe import Probe, Variable
from probes.step import GuidedStep


class FiniteFraction(Probe):
    """Share of the gradient's elements that are finite; below 1 the sample's step goes unguided."""

    variables = (Variable("finite_fraction", "share of finite elements of the gradient", "mean(isfinite(gradient))"),)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        return {"finite_fraction": _share(torch.isfinite(step.gradient))}, state


class Fractions(Probe):
    """Shares of clamped elements of x0-hat, through which no x0 gradient passes, and of zeros in the gradient."""

    needs = ("gradient", "pred_original_sample")
    variables = (
        Variable(
            "clipped_fraction",
            "share of elements of pred_original_sample at the scheduler's clamp",
            "mean(|pred_original_sample| >= clip_range), 0 where the scheduler does not clip",
        ),
        Variable("zero_fraction", "share of elements of the gradient that are exactly zero", "mean(gradient == 0)"),
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
    return mask.float().mean(dim=(1, 2, 3))
