"""Cosine similarities: with the previous step (arXiv 2406.17399) and with the score."""

from typing import Literal

import torch

from probes.numerics import cosine, undefined
from probes.probe import Probe, Variable
from probes.step import GuidedStep


class Cosine(Probe):
    """Cosine of a tensor with itself at the previous sampling step; NaN at the first step and for zero tensors."""

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (
            Variable(
                f"{name}_cosine",
                f"cosine similarity of the {name} with that of the previous step",
                f"cos({name}_t, {name}_prev)",
            ),
        )

    def measure(
        self, step: GuidedStep, state: torch.Tensor | None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
        current = getattr(step, self.name)
        value = undefined(current) if state is None else cosine(current, state)
        return {f"{self.name}_cosine": value}, current


class ScoreCosine(Probe):
    """Cosine of the gradient with the score's direction, -epsilon: below zero it fights the prior."""

    needs = ("gradient", "model_output")
    variables = (
        Variable(
            "score_cosine",
            "cosine similarity of the gradient with the unconditional score",
            "cos(gradient, -model_output)",
        ),
    )

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, torch.Tensor], None]:
        assert step.model_output is not None
        return {"score_cosine": cosine(step.gradient, -step.model_output)}, state
