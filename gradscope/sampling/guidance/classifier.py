"""Guidance by a classifier, or another guide: the gradient of log p(y | input) with respect to x_t.

With DDPM and the method `classifier` the posterior mean is shifted by ``guidance_scale * weight_t * direction``:
equation 1 of GradCheck (arXiv 2406.17399, after arXiv 2105.05233). For other schedulers and methods see `Entry`. The
classifier sees

- ``x_t``: the noisy sample itself;
- ``x0``: x0-hat(x_t), differentiated through the denoiser;
- ``x0_detached``: x0-hat with the predicted noise held constant: the gradient passes the clamp and the factor
  1 / signal_t, without a backward pass through the denoiser.

A noise-aware classifier f(x, t) is asked about x_t at its timestep, and about x0-hat at `timestep_at_x0`.

With `SmoothGrad` the gradient at the classifier's input is a mean over noised inputs. The denoiser still runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import torch
from torch import Tensor, nn

from gradscope.config import ClassifierInput, Normalize, Objective, Weight
from gradscope.errors import GradscopeError, whole_number
from gradscope.models.foreign import failure
from gradscope.models.logits import timed
from gradscope.sampling.guidance.checks import check_guide, check_method, check_settings, check_solver
from gradscope.sampling.guidance.guides import needs_x_0
from gradscope.sampling.guidance.methods import ClassifierGradient, Method, SmoothedGradient
from gradscope.sampling.guidance.smoothgrad import SmoothGrad
from gradscope.sampling.guidance.view import Pull, View, pull
from gradscope.sampling.process import Entry, Prediction, Schedule, Times

Denoise = Callable[[Tensor], Tensor]
"""Output of the denoiser for noisy samples, any number of times those of the step."""
Decode = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Evidence:
    """Gradient and predictions at one x_t."""

    gradient: Tensor
    """The method's vector: for most the gradient of the objective with respect to x_t, ``(n, *sample)``. It is float64,
    since the gradient of a saturated guide lies below float32's range."""
    logits: Tensor | None
    """Logits ``(n, classes)`` of the input without SmoothGrad's noise; None for an energy and for a sum."""
    energy: Tensor
    """The objective itself at that input, ``(n,)``, float64."""
    prediction: Prediction
    objective: Callable[[Tensor, Tensor], Tensor]
    """The objective as a function of x_t and labels; see `GuidedStep.objective`."""
    log_factor: Tensor
    """Logarithm of the factor between the models' own gradients and `gradient`, ``(n,)``, float64; see `objectives`."""
    enters: Entry = "process"
    """How the vector enters the step."""
    defined: bool = True
    """False for x0_detached at signal 0, where 1 / signal_t is infinite; the vector is then 0."""


@dataclass(frozen=True)
class ClassifierGuidance:
    """A guide and its settings: a classifier, an `Energy`, or a `WeightedSum`.

    Raises
    ------
    GradscopeError
        A setting is unknown or out of range.

    Examples
    --------
    >>> ClassifierGuidance(classifier, classifier_input="x0", guidance_scale=0.4).normalize
    'l2'
    """

    classifier: nn.Module
    """The guide. A classifier maps samples ``(n, *sample)`` in the denoiser's range to logits ``(n, classes)``, see
    `as_logits`; it gets a copy of its input in the type of its weights. An `Energy` is any
    function, and a `WeightedSum` several guides."""
    classifier_input: ClassifierInput = "x_t"
    """Input of the classifier: ``x_t``, ``x0`` or ``x0_detached``. See `Energy` for what it means there."""
    guidance_scale: float = 1.0
    """Factor of the shift. 0 takes gradients without guiding; below 0 guidance steers away from the target."""
    objective: Objective = "log_prob"
    """Function of a classifier to differentiate: the target's log-probability (``log_prob``) or logit (``logit``)."""
    normalize: Normalize = "l2"
    """``l2`` divides each sample's update by its norm; ``none`` does not."""
    weight: Weight = "one"
    """Factor of the shift: 1 (``one``), or the standard deviation (``sigma``) or variance of DDPM's noise."""
    interval: tuple[float, float] | None = None
    """Timesteps ``first <= t < end`` that are guided; None for all. At others gradients are taken, the shift is 0."""
    smoothgrad: SmoothGrad | None = None
    """Average the gradient over noised inputs of the classifier; None does not."""
    takes_timestep: bool | None = None
    """Whether the classifier is noise-aware, f(x, t); None: the signature of its forward says so, see
    `probes.timed.takes_timestep`."""
    timestep_at_x0: int = 0
    """Timestep at which a noise-aware classifier is asked about x0-hat, at least 0."""
    method: Method = ClassifierGradient()
    """How the guide becomes a vector that shifts a step, see `gradscope.methods`."""

    def __post_init__(self) -> None:
        has_smoothgrad = self.smoothgrad is not None
        check_guide(self.classifier, self.takes_timestep, has_smoothgrad)
        check_settings(vars(self))
        check_method(self.method, [self.classifier_input], has_smoothgrad)
        self.method.check_guide(self.classifier)

    @cached_property
    def _guide(self) -> nn.Module:
        """The guide in the form that `ask` takes."""
        return timed(self.classifier, self.takes_timestep)

    @cached_property
    def _method(self) -> Method:
        return self.method if self.smoothgrad is None else SmoothedGradient(self.smoothgrad)

    def evaluate(
        self,
        x_t: Tensor,
        label: Tensor,
        times: Times,
        schedule: Schedule,
        denoise: Denoise,
        seeds: Sequence[int] = (),
        first_sample: int = 0,
        repeat: int = 0,
        decode: Decode | None = None,
    ) -> Evidence:
        """The method's vector and the prediction at x_t, with one pass of the denoiser.

        Parameters
        ----------
        x_t
            Noisy samples, ``(n, *sample)``.
        label
            Target classes, ``(n,)``, int64.
        times, schedule
            The step and its schedule.
        denoise
            The denoiser's output at this timestep, for any number of samples.
        seeds
            Seeds of the method's own noise, one per sample.
        first_sample
            Number of the first sample in the run, which chooses the targets of an `Energy`.
        repeat
            Number of this step's repetition.
        decode
            Maps a latent x0-hat to the images that guides see; None: guides see x0-hat itself.

        Raises
        ------
        GradscopeError
            Guide and samples or labels do not fit each other, or an output has no graph to differentiate.
        """
        x = x_t.detach().requires_grad_()
        samples = range(first_sample, first_sample + len(x))
        # What moves x0-hat itself needs no slope of it, which is infinite at signal 0.
        defined = self.classifier_input != "x0_detached" or times.level.signal > 0 or self._method.enters == "x0"
        with torch.enable_grad():
            prediction = self._predict(x, times, schedule, denoise)
            if self.classifier_input == "x0" and not prediction.native.requires_grad:
                raise GradscopeError(
                    "guidance.classifier_input: x0 is differentiated through the denoiser, but its output has no "
                    "graph: does it run under torch.no_grad or inference_mode, or detach? Otherwise take x0_detached"
                )
            make = partial(self._view, times=times, schedule=schedule, samples=samples, decode=decode)
            view = replace(make(x, label, prediction), seeds=seeds, repeat=repeat)
            if defined:
                found = self._pulled(view)
            else:
                with torch.no_grad():
                    found = pull(torch.zeros_like(x, dtype=torch.float64, requires_grad=False), view.ask())
        logits, scores = found.answer.logits, found.answer.scores
        return Evidence(
            found.vector.detach(),
            None if logits is None else logits.detach(),
            scores.objective.detach(),
            prediction.detached(),
            partial(self._objective, times=times, schedule=schedule, denoise=denoise, make=make),
            found.log_factor,
            self._method.enters,
            defined,
        )

    def _pulled(self, view: View) -> Pull:
        """What the method gives, checked to be a vector for each sample."""
        try:
            found = self._method.pull(view)
        except (GradscopeError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if type(self._method).__module__.startswith("gradscope."):
                raise
            raise failure(f"{self._named}.pull", "guidance.method", error) from error
        if not isinstance(found, Pull) or found.vector.shape != view.x_t.shape:
            got = f"a vector {tuple(found.vector.shape)}" if isinstance(found, Pull) else type(found).__name__
            raise GradscopeError(
                f"guidance.method: {self._named}.pull must give a Pull with a vector {tuple(view.x_t.shape)}, got {got}"
            )
        return found

    def _objective(
        self, x: Tensor, label: Tensor, times: Times, schedule: Schedule, denoise: Denoise, make: Callable[..., View]
    ) -> Tensor:
        """See `GuidedStep.objective`."""
        # A classifier of x_t needs no prediction, so the denoiser does not run.
        is_needed = self.classifier_input != "x_t" or needs_x_0(self._guide)
        prediction = self._predict(x, times, schedule, denoise) if is_needed else None
        return make(x, label, prediction).ask().scores.objective

    def _predict(self, x: Tensor, times: Times, schedule: Schedule, denoise: Denoise) -> Prediction:
        """The denoiser's prediction at x; only x0 needs a graph through it."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.classifier_input == "x0"):
            return schedule.predict(denoise(x), x, times)

    def _view(
        self,
        x: Tensor,
        label: Tensor,
        prediction: Prediction | None,
        times: Times,
        schedule: Schedule,
        samples: range,
        decode: Decode | None,
    ) -> View:
        return View(
            x_t=x,
            prediction=prediction,
            label=label,
            times=times,
            schedule=schedule,
            guide=self._guide,
            given=self.classifier_input,
            objective=self.objective,
            samples=samples,
            timestep_at_x0=self.timestep_at_x0,
            decode=decode,
        )

    def repeats(self, times: Times) -> int:
        """How often a step is taken."""
        return whole_number(self._method.repeats(times), f"guidance.method: {self._named}.repeats", least=1)

    @property
    def _named(self) -> str:
        return type(self._method).__name__

    def check(self, schedule: Schedule) -> None:
        """Raise GradscopeError if the interval covers no timestep, or the method is not defined on the schedule."""
        self._method.check(schedule)
        repeats = max([self.repeats(times) for times in schedule.times])
        check_solver(self._method, repeats > 1, schedule)
        self._check_interval(schedule)

    def _check_interval(self, schedule: Schedule) -> None:
        """Raise GradscopeError if the interval covers none of the schedule's timesteps."""
        if self.interval is not None and not any(self._acts(times) for times in schedule.times):
            first, last = schedule.times[0].timestep, schedule.times[-1].timestep
            raise GradscopeError(
                f"guidance.interval: no timestep lies in [{self.interval[0]}, {self.interval[1]}); the "
                f"{len(schedule.times)} steps go from {first} to {last}"
            )

    def _acts(self, times: Times) -> bool:
        return self.interval is None or self.interval[0] <= times.timestep < self.interval[1]

    def amount(self, times: Times, spread: float | Tensor) -> float | Tensor:
        """``guidance_scale * weight_t``; 0 outside the interval.

        Parameters
        ----------
        times
            The step.
        spread
            Standard deviation of DDPM's noise, one number or one per element, ``(n, *sample)``.
        """
        if not self._acts(times):
            return 0.0
        weight = {"one": 1.0, "sigma": spread, "variance": spread**2}[self.weight]
        return self.guidance_scale * weight
