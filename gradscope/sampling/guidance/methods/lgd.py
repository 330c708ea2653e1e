"""Loss-guided diffusion with Monte Carlo, LGD-MC (ICML 2023, proceedings.mlr.press/v202/song23k).

The guide is asked about several clean samples around x0-hat, and the objective is the logarithm of their mean::

    g = grad_{x_t} log 1/K sum_k exp(E(x0-hat(x_t) + r_t noise_k)),  r_t = noise_t / sqrt(signal_t^2 + noise_t^2)

For a classifier, exp(E) is a probability, so this is the gradient of its mean. The denoiser runs once forward, and
at x0 once backward; the guide K times.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.guides import Answer
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.view import Pull, View, pull


@dataclass(frozen=True)
class LGD(Method):
    """Parameters
    ----------
    draws
        K, at least 1.
    std
        Factor of r_t, at least 0.
    """

    draws: int = 4
    std: float = 1.0
    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x0", "x0_detached")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require("draws", least=1)
        self.require("std", least=0)

    def pull(self, view: View) -> Pull:
        answer = mean_answer(view, view.x_0, self.std, self.draws)
        return pull(view.gradient(answer.scores, view.x_t), answer)


def mean_answer(view: View, x_0: torch.Tensor | None, std: float, draws: int) -> Answer:
    """The guide's answer, averaged as probabilities over samples with noise of std r_t; one answer if std is 0."""
    assert x_0 is not None
    if std == 0:
        return view.ask(x_0)
    radius = std * view.times.level.noise / view.times.level.scale
    answers = [view.ask(x_0 + radius * view.noise(draw)) for draw in range(draws)]
    logits = [answer.logits for answer in answers if answer.logits is not None]
    mean = torch.stack([z.detach().log_softmax(dim=1) for z in logits]).logsumexp(dim=0) if logits else None
    return Answer(objectives.log_mean_exp([answer.scores for answer in answers]), mean)
