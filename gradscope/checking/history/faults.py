"""Faults of public code, re-planted: each is the line that was wrong, in the place of one part of a loop.

A part's right form is a method of `gradscope.checking.history.loop.Loop`. ``type(loop).part(loop, ...)`` is that form,
where the wrong line only adds to it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gradscope.checking.history.loop import Loop, normalized
from gradscope.checking.history.networks import Time

ALL = ("classifier", "posterior", "planner", "chunking", "classifier_free")


@dataclass(frozen=True)
class Fault:
    """One way in which guidance was wrong."""

    name: str
    part: str
    """The method of a loop in whose place it is planted."""
    wrong: Callable[..., Any]
    verdict: str
    """What `gradscope.check` must answer."""
    seen: str
    """Where it was seen, repository and number, or the habit behind it."""
    loops: tuple[str, ...]
    settings: dict[str, Any]
    """Of the loop, without which the fault does not show."""
    in_the_shift: bool
    """Whether it acts after the gradient, on the way to the next sample."""

    @property
    def meaning(self) -> str:
        """In one sentence."""
        return " ".join((self.wrong.__doc__ or "").split())


FAULTS: dict[str, Fault] = {}
"""By name."""


def planted(
    part: str, verdict: str, seen: str, loops: tuple[str, ...] = ALL, *, in_the_shift: bool = False, **settings: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(wrong: Callable[..., Any]) -> Callable[..., Any]:
        name = wrong.__name__
        FAULTS[name] = Fault(name, part, wrong, verdict, seen, loops, settings, in_the_shift)
        return wrong

    return keep


_DIFFERENTIATED = ("classifier", "posterior", "planner", "chunking")
_NOISY = ("classifier", "planner", "classifier_free")
_ANCESTRAL = ("classifier", "posterior", "planner", "classifier_free")


@planted("variable", "at_x0", "Training-Free-Guidance 5", ("posterior",))
def at_x0(loop: Loop, x: Tensor, seen: Tensor) -> Tensor:
    """The name x was reassigned to x0-hat before `autograd.grad`, which then differentiates with respect to x0-hat."""
    return seen


@planted("output", "jacobian_missing", "lerobot PR 2499, real-time-chunking-kinetix 4", ("posterior", "chunking"))
def jacobian(loop: Loop, x: Tensor, t: Time) -> Tensor:
    """The denoiser ran before x required a gradient, so its Jacobian never enters."""
    return type(loop).output(loop, x, t).detach()


@planted(
    "where",
    "at_mean",
    "guided-diffusion 51, denoising-diffusion-pytorch 276, denoising-diffusion-pytorch PR 277",
    _ANCESTRAL,
)
def at_mean(loop: Loop, x: Tensor, t: Time) -> Tensor:
    """The gradient is taken at the mean of the next sample and declared at x_t; guided-diffusion has the reverse."""
    return loop.unguided(x, t)[0]


@planted("where", "stale_x", "a habit: the differentiated copy is made once")
def stale(loop: Loop, x: Tensor, t: Time) -> Tensor:
    """The copy that requires a gradient was made before the loop, or a step ago, and not again."""
    return loop.before[0]


@planted("where", "noise_before_gradient", "diffuser 30", _ANCESTRAL)
def noise_first(loop: Loop, x: Tensor, t: Time) -> Tensor:
    """The next sample gets its noise first, and the gradient is taken there."""
    mean, noise = loop.unguided(x, t)
    return mean + noise


@planted("scaled", "wrong_sign", "motion_guidance 7, lerobot 2511, real-time-chunking-kinetix 4")
def sign(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """The gradient of a loss is added, or that of a log-probability subtracted: negated once too often."""
    return -gradient


@planted("scaled", "doubled", "a habit: `backward` without zeroed gradients")
def doubled(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """`x.grad` of an earlier pass was not zeroed, so the same gradient is counted twice."""
    return gradient + gradient


@planted("total", "batch_mean", "guided-diffusion 51", _DIFFERENTIATED)
def batch_mean(loop: Loop, scores: Tensor) -> Tensor:
    """A mean over the batch: every gradient is divided by the number of samples."""
    return scores.mean()


@planted("total", "scaled_by_sample", "diffusion-posterior-sampling 20", ("posterior", "chunking"))
def not_squared(loop: Loop, scores: Tensor) -> Tensor:
    """The norm of the residual where its square is declared: every gradient is divided by the norm."""
    return -(-2 * scores).sqrt().sum()


@planted("ranged", "wrong_range", "a habit: guides trained on [0, 1] or on standardised data", _DIFFERENTIATED)
def image_range(loop: Loop, seen: Tensor) -> Tensor:
    """The guide was trained on [-1, 1] and gets [0, 1]."""
    return (seen + 1) / 2


@planted("time", "wrong_timestep", "a habit: respaced timesteps")
def index(loop: Loop, t: Time) -> Time:
    """The guide gets the number of the step, not the timestep that the map has for it."""
    return type(t)(len(loop.timesteps) - 1 - loop.timesteps.index(t))


@planted("time", "wrong_timestep", "guided-diffusion 51")
def off_by_one(loop: Loop, t: Time) -> Time:
    """The guide gets the timestep of the next sample together with x_t."""
    place = loop.timesteps.index(t) + 1
    return loop.timesteps[min(place, len(loop.timesteps) - 1)]


@planted("target", "wrong_target", "a habit: labels in another order, or counted from 1", _NOISY)
def label(loop: Loop, *_: Any) -> Tensor:
    """Labels that count from 1."""
    assert loop.labels is not None
    return (loop.labels + 1) % loop.classes


@planted("pair", "zero", "DiffGui 5", ("classifier_free",))
def unconditional(loop: Any, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
    """The unconditional pass gets the label, too: the two predictions are equal."""
    conditional = loop.denoiser(x, t, loop.target())
    return conditional, conditional


@planted("objective", "logit", "a habit: log p in guided-diffusion, the logit in nrCG", ("classifier",))
def logit(loop: Loop, logits: Tensor, target: Tensor) -> Tensor:
    """The target's logit, without log_softmax: other classes do not push back."""
    return logits[range(len(target)), target]


@planted("scaled", "normalized", "diffusion-posterior-sampling 6")
def normalised(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """Divided by its norm in the code, not in the paper."""
    return normalized(gradient)


@planted("direction", "order", "a habit: a stabiliser is added behind the normalisation", stabilized=True)
def order(loop: Loop, gradient: Tensor) -> tuple[Tensor, Any]:
    """Normalised before the stabiliser, though declared after it: memory then ignores how strong a gradient was."""
    return loop.stabilizer.update(normalized(gradient), loop.state)


@planted("scaled", "scaled", "diffusers PR 884, Universal-Guided-Diffusion 5")
def sigma(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """Multiplied by sigma, which the shift already holds."""
    return loop.sigma(t) * gradient


@planted("scaled", "scaled", "diffuser 30")
def variance(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """Multiplied by the variance, which the shift already holds."""
    return loop.sigma(t) ** 2 * gradient


@planted("scaled", "scaled", "a habit: the step of x0-hat is used for x_t", _ANCESTRAL)
def signal(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """Divided by sqrt(alphas_cumprod), as an update of x0-hat would be."""
    return gradient / loop.levels(t)[0]


@planted("pair", "wrong_sign", "a habit: chunk(2) in another order than cat", ("classifier_free",))
def swapped(loop: Any, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
    """The halves of the batch are split in the other order: c and u are exchanged."""
    conditional, unconditional = type(loop).pair(loop, x, t)
    return unconditional, conditional


@planted("scaled", "scaled", "threestudio 289, stable-dreamfusion 370, diffusers 5882", ("classifier_free",))
def one_more(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """The scale counts from 0, as in the paper, where the code counts from 1: u + (1 + w) (c - u)."""
    return gradient * (1 + loop.scale) / loop.scale


@planted("guided_clean", "clamped_twice", "a habit: clamp after guidance", ("posterior",), in_the_shift=True)
def clamped_twice(loop: Loop, x_0: Tensor) -> Tensor:
    """x0-hat is clamped again after guidance, which cuts the push where the first clamp did."""
    return x_0.clamp(-1, 1)


@planted("scaled", "float16_underflow", "a habit: guides in half precision", faint=True)
def float16(loop: Loop, gradient: Tensor, t: Time) -> Tensor:
    """Half precision: numbers below 6e-8 are zero, and those below 6e-5 lose digits."""
    return torch.as_tensor(gradient.half(), dtype=gradient.dtype)
