"""Cosine similarities: with an earlier step (arXiv 2406.17399), between two tensors of a step, and with the score."""

from typing import Literal

import torch
from torch import Tensor

from probes.catalogue import CATALOGUE, LAG_PARTS, cosine_between, cosine_of, row
from probes.numerics import cosine_of_units, undefined
from probes.probe import Probe
from probes.step import GuidedStep


class Cosine(Probe):
    """Cosine of a tensor with itself at the previous sampling step; NaN at the first step and for zero tensors."""

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (row(cosine_of(name)),)

    def measure(self, step: GuidedStep, state: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        now = step.unit_rows(self.name)
        value = undefined(step.x_t) if state is None else cosine_of_units(now, state)
        return {f"{self.name}_cosine": value}, now


class LagCosine(Probe):
    """Cosine of the gradient with that about T / 28 timesteps earlier, however many steps the sampler takes.

    Successive gradients are the nearer in time, and so the more alike, the more steps there are. Here the range of T
    timesteps is cut into `LAG_PARTS` equal parts. The first step in each part is compared with the first step in the
    part before it that has one. NaN at the other steps. Steps further apart than T / 28 are each compared with the one
    before.
    """

    needs = ("gradient", "num_train_timesteps")
    variables = (CATALOGUE["gradient_lag_cosine"],)

    def measure(
        self, step: GuidedStep, state: tuple[int, Tensor] | None
    ) -> tuple[dict[str, Tensor], tuple[int, Tensor]]:
        assert step.num_train_timesteps is not None
        part = int(step.timestep * LAG_PARTS // step.num_train_timesteps)
        value = undefined(step.x_t)
        if state is None or part != state[0]:
            now = step.unit_rows("gradient")
            if state is not None:
                value = cosine_of_units(now, state[1])
            state = part, now
        return {"gradient_lag_cosine": value}, state


class FirstCosine(Probe):
    """Cosine of the gradient with the first one that the sample had: where it falls towards -1, it has turned round.

    NaN up to and at that first gradient, and for zero tensors.
    """

    needs = ("gradient",)
    variables = (CATALOGUE["gradient_first_cosine"],)

    def measure(self, step: GuidedStep, state: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        now = step.unit_rows("gradient")
        if state is None:
            return {"gradient_first_cosine": undefined(step.x_t)}, now
        usable = (state.any(dim=1) & state.isfinite().all(dim=1))[:, None]
        value = cosine_of_units(now, state).where(usable[:, 0], torch.nan)
        return {"gradient_first_cosine": value}, state.where(usable, now)


class CosineBetween(Probe):
    """Cosine of one tensor of a step with another; NaN where either is zero."""

    def __init__(self, first: Literal["shift", "update"], second: Literal["direction", "gradient"]) -> None:
        self.needs = (first, second)
        self.variables = (row(cosine_between(first, second)),)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        first, second = map(step.unit_rows, self.needs)
        return {self.variables[0].name: cosine_of_units(first, second)}, state


class ScoreCosine(Probe):
    """Cosine of the gradient with the score's direction, -epsilon: below zero it fights the prior."""

    needs = ("gradient", "model_output")
    variables = (CATALOGUE["score_cosine"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        gradient, epsilon = map(step.unit_rows, self.needs)
        return {"score_cosine": -cosine_of_units(gradient, epsilon)}, state
