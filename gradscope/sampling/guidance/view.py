"""What a guidance method works with at one step: x_t, the prediction, and questions to the guide."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor, nn

import gradscope.sampling.guidance.objectives as objectives
from gradscope.config import ClassifierInput, Objective
from gradscope.sampling.guidance.guides import Answer, Look, ask
from gradscope.sampling.guidance.objectives import Scores
from gradscope.sampling.noise import own_noise
from gradscope.sampling.process import Prediction, Schedule, Times


@dataclass(frozen=True)
class View:
    """One step as a method sees it. Tensors of samples are ``(n, *sample)``."""

    x_t: Tensor
    """Noisy samples, a leaf of autograd's graph."""
    prediction: Prediction | None
    """The denoiser's prediction; its graph reaches x_t if ``classifier_input`` is x0. None if no guide needs it."""
    label: Tensor
    """Target classes, ``(n,)``, int64."""
    times: Times
    schedule: Schedule
    guide: nn.Module
    given: ClassifierInput
    """The setting ``classifier_input``."""
    objective: Objective
    samples: range
    """Numbers of the samples in the run."""
    timestep_at_x0: int = 0
    decode: Callable[[Tensor], Tensor] | None = None
    """Maps a latent x0-hat to the images that guides see; None for the identity."""
    seeds: Sequence[int] = ()
    """Seeds of the samples' own noise."""
    repeat: int = 0
    """Number of this step's repetition."""

    @cached_property
    def x_0(self) -> Tensor | None:
        """x0-hat, clamped where the scheduler clips; differentiable in x_t as `given` says."""
        if self.prediction is None:
            return None
        if self.given == "x0_detached" and self.times.level.signal > 0:
            return self.schedule.original_sample(self.x_t, self.prediction.model_output, self.times)
        return self.prediction.pred_original_sample

    @cached_property
    def look(self) -> Look:
        """What the guide sees by `given`."""
        x_0 = None if self.x_0 is None else self._decoded(self.x_0)
        return self._look(x_0, None if self.given == "x_t" else x_0)

    def _look(self, x_0: Tensor | None, seen: Tensor | None) -> Look:
        """A look at decoded x_0, where a classifier sees `seen`, or x_t if that is None."""
        x, t = self.schedule.model_input(self.x_t, self.times), self.times.timestep
        seen, seen_at = (x, t) if seen is None else (seen, self.timestep_at_x0)
        return Look(x, t, x_0, seen, seen_at, self.samples, is_first=self.times.step == 0 and self.repeat == 0)

    def _decoded(self, x_0: Tensor) -> Tensor:
        return x_0 if self.decode is None else self.decode(x_0)

    def ask(self, x_0: Tensor | None = None) -> Answer:
        """The guide's answer, with a graph.

        Parameters
        ----------
        x_0
            A clean sample to ask about, in place of x0-hat; the guide then sees it whatever `given` says.
        """
        if x_0 is None or (x_0 is self.x_0 and self.given != "x_t"):
            look = self.look  # decoded once
        else:
            decoded = self._decoded(x_0)
            look = self._look(decoded, decoded)
        return ask(self.guide, look, self.label, self.objective)

    def ask_seen(self, seen: Tensor) -> Scores:
        """The scores of another input of the classifier than that of `look`, ``(n, *sample)``."""
        return ask(self.guide, self.look._replace(seen=seen, is_first=False), self.label, self.objective).scores

    def gradient(self, scores: Scores, at: Tensor) -> Tensor:
        """Gradient of the objective with respect to `at`, float64; a saturated guide's is exact, see `objectives`."""
        return self.gradients(scores, [at])[0]

    def gradients(self, scores: Scores, at: Sequence[Tensor]) -> list[Tensor]:
        """Gradients with respect to several tensors, by one backward pass; see `gradient`."""
        return [objectives.scaled(found, scores.log_factor) for found in objectives.slopes(scores.value, at)]

    def noise(self, draw: int = 0) -> Tensor:
        """Standard normal noise of the shape of x_t, by the samples' seeds, the step, its repetition and `draw`."""
        return own_noise(self.seeds, (self.times.step, self.repeat, draw), self.x_t)


@dataclass(frozen=True)
class Pull:
    """What a method gives for one step."""

    vector: Tensor
    """What guidance adds, before stabiliser, normalisation and scale: ``(n, *sample)``, float64."""
    answer: Answer
    """The guide's answer that is recorded: objective and, for a classifier, logits."""
    log_factor: Tensor
    """Logarithm of the factor between the models' own gradients and `vector`, ``(n,)``, float64."""


def pull(vector: Tensor, answer: Answer) -> Pull:
    """A `Pull` whose factor is that of the answer's scores."""
    return Pull(vector, answer, answer.scores.log_factor)


def leaf(x: Tensor) -> Tensor:
    """A copy without a graph, to differentiate at."""
    return x.detach().clone().requires_grad_()
