"""Cosine similarities: with an earlier step (arXiv 2406.17399), between two tensors of a step, and with the score."""

from typing import Literal

import torch
from torch import Tensor

from probes.catalogue import CATALOGUE, LAG_PARTS, cosine_between, cosine_of, row
from probes.numerics import cosine_of_units, undefined
from probes.probe import Probe
from probes.step import GuidedStep


class Cosine(Probe):
    """Cosine of a tensor with itself at the previous sampling step; NaN at the first step and for zero tensors.

    Examples
    --------
    >>> first = GuidedStep(step=0, timestep=999, x_t=torch.zeros(1, 1, 1, 2), gradient=torch.tensor([[[[1.0, 0.0]]]]))
    >>> second = GuidedStep(step=1, timestep=998, x_t=torch.zeros(1, 1, 1, 2), gradient=torch.tensor([[[[3.0, 4.0]]]]))
    >>> cosine = Cosine("gradient")
    >>> _, state = cosine.measure(first, cosine.init())
    >>> values, _ = cosine.measure(second, state)
    >>> values["gradient_cosine"]
    tensor([0.6000])
    """

    def __init__(self, name: Literal["gradient", "update"]) -> None:
        self.name = name
        self.needs = (name,)
        self.variables = (row(cosine_of(name)),)

    def measure(self, step: GuidedStep, state: Tensor | None) -> tuple[dict[str, Tensor], Tensor]:
        now = step.unit_rows(self.name)
        value = undefined(step.x_t) if state is None else cosine_of_units(now, state)
        return {f"{self.name}_cosine": value}, now


class LagCosine(Probe):
    """Cosine of the gradient with the gradient about T / 28 timesteps earlier, for any number of sampling steps.

    With more steps, successive gradients are closer in time and so more alike. To compare runs with different numbers
    of steps, this probe cuts the range of T timesteps into `LAG_PARTS` equal parts. It compares the first step in each
    part with the first step of the previous part that has a step, and gives NaN at the other steps. If steps are
    further apart than T / 28, each is compared with the previous one.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    >>> probe, state, cosines = LagCosine(), None, []
    >>> for i, t in enumerate((999, 990, 950)):
    ...     step = GuidedStep(step=i, timestep=t, x_t=x_t, gradient=gradient, num_train_timesteps=1000)
    ...     values, state = probe.measure(step, state)
    ...     cosines.append(round(values["gradient_lag_cosine"].item(), 4))
    >>> cosines
    [nan, nan, 1.0]
    """

    needs = ("gradient", "num_train_timesteps")
    variables = (CATALOGUE["gradient_lag_cosine"],)

    def measure(
        self, step: GuidedStep, state: tuple[int, Tensor] | None
    ) -> tuple[dict[str, Tensor], tuple[int, Tensor]]:
        assert step.num_train_timesteps is not None
        time = step.timestep / step.num_train_timesteps if step.time is None else step.time
        part = int(time * LAG_PARTS // 1)
        value = undefined(step.x_t)
        if state is None or part != state[0]:
            now = step.unit_rows("gradient")
            if state is not None:
                value = cosine_of_units(now, state[1])
            state = part, now
        return {"gradient_lag_cosine": value}, state


class FirstCosine(Probe):
    """Cosine of the gradient with the sample's first gradient; near -1 the gradient has reversed.

    The first gradient is the first one that is finite and not zero. NaN up to that step, and for zero gradients.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    >>> first = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient)
    >>> second = GuidedStep(step=1, timestep=998, x_t=x_t, gradient=-gradient)
    >>> probe = FirstCosine()
    >>> _, state = probe.measure(first, probe.init())
    >>> values, _ = probe.measure(second, state)
    >>> values["gradient_first_cosine"]
    tensor([-1.])
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
    """Cosine of one tensor of a step with another; NaN where either is zero.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient, update=2 * gradient)
    >>> values, _ = CosineBetween("update", "gradient").measure(step, None)
    >>> values["update_gradient_cosine"]
    tensor([1.])
    """

    def __init__(self, first: Literal["shift", "update"], second: Literal["direction", "gradient"]) -> None:
        self.needs = (first, second)
        self.variables = (row(cosine_between(first, second)),)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        first, second = map(step.unit_rows, self.needs)
        return {self.variables[0].name: cosine_of_units(first, second)}, state


class ScoreCosine(Probe):
    """Cosine of the gradient with the direction of the score, -epsilon; below zero the gradient opposes the prior.

    Examples
    --------
    >>> x_t, gradient = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 1, 2)
    >>> step = GuidedStep(step=0, timestep=999, x_t=x_t, gradient=gradient, model_output=gradient)
    >>> values, _ = ScoreCosine().measure(step, None)
    >>> values["score_cosine"]
    tensor([-1.])
    """

    needs = ("gradient", "model_output")
    variables = (CATALOGUE["score_cosine"],)

    def measure(self, step: GuidedStep, state: None) -> tuple[dict[str, Tensor], None]:
        gradient, epsilon = map(step.unit_rows, self.needs)
        return {"score_cosine": -cosine_of_units(gradient, epsilon)}, state
