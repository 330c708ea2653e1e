"""Cosine similarities: with the previous step (arXiv 2406.17399) and with the score."""

from typing import Literal

from torch import Tensor

from probes.numerics import cosine_of_rows, undefined
from probes.probe import Probe, Variable
from probes.step import GuidedStep

State = tuple[Tensor, Tensor] | None
"""Rows of the previous step, and their norms."""


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

    def measure(self, step: GuidedStep, state: State) -> tuple[dict[str, Tensor], State]:
        rows, norm = step.rows(self.name), step.norm(self.name)
        if state is None:
            value = undefined(getattr(step, self.name))
        else:
            value = cosine_of_rows(rows, state[0], norm * state[1])
        return {f"{self.name}_cosine": value}, (rows, norm)


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

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        names = ("gradient", "model_output")
        (gradient, epsilon), (a, b) = map(step.rows, names), map(step.norm, names)
        return {"score_cosine": -cosine_of_rows(gradient, epsilon, a * b)}, state
