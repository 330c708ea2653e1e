"""Classifier guidance (arXiv 2105.05233), at x_t or at x0-hat (arXiv 2406.17399).

The vector is the gradient of the objective with respect to x_t::

    g = grad_{x_t} log p(y | c(x_t)),  c(x_t) = x_t or x0-hat(x_t)

It enters the posterior mean of DDPM, or the score of any other process. One forward pass of the denoiser a step, and
one backward pass for x0. With SmoothGrad the gradient at the classifier's input is a mean over noised inputs.
"""

from dataclasses import dataclass

import torch

import gradscope.sampling.guidance.objectives as objectives
from gradscope.sampling.guidance.methods.base import Method
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.guidance.view import Pull, View, pull


@dataclass(frozen=True)
class ClassifierGradient(Method):
    """The gradient with respect to x_t."""

    def pull(self, view: View) -> Pull:
        answer = view.ask()
        return pull(view.gradient(answer.scores, view.x_t), answer)


@dataclass(frozen=True)
class SmoothedGradient(Method):
    """The gradient with respect to x_t, averaged over noised inputs of the classifier."""

    smoothgrad: SmoothGrad

    def pull(self, view: View) -> Pull:
        seen = view.look.seen
        with torch.no_grad():
            answer = view.ask()
        mean, log_factor = self.smoothgrad.gradient(view.ask_seen, seen, view.seeds, view.times.step)
        (gradient,) = torch.autograd.grad(seen, view.x_t, mean)
        return Pull(objectives.scaled(gradient, log_factor), answer, log_factor)
