"""A guided sampling loop, in parts that can each be replaced by a wrong one."""

import copy
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gradscope.checking.history.networks import Time, clean
from gradscope.errors import GradscopeError, one_of
from gradscope.stabilizers import Adam


class Loop:
    """A small, correct sampling loop, whose models, labels and noise are drawn from a seed.

    The guide is declared as `energy`. What the code does is `cond_fn` and `step`. They are made of the parts below, in
    the order in which they run. A planted fault replaces one part by a wrong one.

    Parameters
    ----------
    fault
        Name of a fault in `gradscope.checking.history.FAULTS`; None for the correct loop.
    seed
        Of the models, labels and noise.
    n
        Samples in the batch.
    dtype
        Of models and samples.
    steps
        Visited timesteps of 1,000.
    clamp
        Clamp the predicted clean sample to [-1, 1].
    prediction
        What the denoiser predicts; the loop's own where None.
    stabilized
        Declare ADAM and, after it, l2 normalisation of every sample. Otherwise the gradient is used as it is.
    faint
        A guide that is almost sure, or weak: gradients of about 1e-7.

    Raises
    ------
    GradscopeError
        The fault is not one of this loop's.
    """

    name: ClassVar[str]
    style: ClassVar[str]
    """The public code whose style it follows."""
    shape: ClassVar[tuple[int, ...]]
    prediction: str = "epsilon"
    through_denoiser: ClassVar[bool] = False
    """Whether the guide sees the predicted clean sample, differentiated through the denoiser."""

    denoiser: nn.Module
    guide: nn.Module
    labels: Tensor | None = None
    classes = 0
    timesteps: list[Any]
    scheduler: Any
    scale = 2.0

    def __init__(
        self,
        fault: str | None = None,
        *,
        seed: int = 0,
        n: int = 4,
        dtype: torch.dtype = torch.float64,
        steps: int = 12,
        clamp: bool = True,
        prediction: str | None = None,
        stabilized: bool = False,
        faint: bool = False,
    ) -> None:
        from gradscope.checking.history.faults import FAULTS

        here = [name for name, one in FAULTS.items() if self.name in one.loops]
        if fault is not None and fault not in here:
            raise GradscopeError(f"fault: the loop {self.name} has no {fault!r}; {one_of(fault, here)}")
        self.n, self.dtype, self.steps, self.clamp = n, dtype, steps, clamp
        self.stabilized, self.faint = stabilized, faint
        self.prediction = prediction or self.prediction
        generator = torch.Generator().manual_seed(seed)
        self.build(generator)
        for module in (self.denoiser, self.guide):
            module.to(dtype)
        self.x_T = torch.randn(n, *self.shape, generator=generator).to(dtype)
        drawn = torch.randn(steps, n, *self.shape, generator=generator).to(dtype)
        self.noises = {float(t): noise for t, noise in zip(self.timesteps, drawn, strict=True)}
        self.stabilizer = Adam()
        self.restart()
        self.right = copy.copy(self)
        self.right.right = self.right
        self.fault = None if fault is None else FAULTS[fault]
        if self.fault is not None:
            setattr(self, self.fault.part, partial(self.fault.wrong, self))

    def restart(self) -> None:
        """Forget the steps of an earlier run."""
        self.before: tuple[Tensor, Any] = (self.x_T, self.timesteps[0])
        self.state = self.stabilizer.init(self.x_T)

    # What a loop defines.

    def build(self, generator: torch.Generator) -> None:
        """Make denoiser, guide, scheduler and timesteps."""
        raise NotImplementedError

    def levels(self, t: Time) -> tuple[float, float]:
        raise NotImplementedError

    def score(self, seen: Tensor, t: Time, target: Any) -> Tensor:
        """What the guide says of each sample, ``(n,)``."""
        raise NotImplementedError

    def unguided(self, x: Tensor, t: Time) -> tuple[Tensor, Tensor]:
        """The mean of the next sample, and the noise that is added to it."""
        raise NotImplementedError

    def weight(self, t: Time) -> float:
        """The shift of the next sample for a direction of 1 at a guidance scale of 1."""
        raise NotImplementedError

    def sigma(self, t: Time) -> float:
        """The standard deviation by whose square a gradient is scaled in this style of code."""
        raise NotImplementedError

    # The parts, in the order in which they run.

    def where(self, x: Tensor, t: Time) -> Tensor:
        """The sample at which the gradient is taken."""
        return x

    def output(self, x: Tensor, t: Time) -> Tensor:
        """The denoiser's output, on the way to the guide."""
        return self.denoiser(x, t)

    def time(self, t: Time) -> Time:
        """The timestep for the gradient."""
        return t

    def target(self) -> Any:
        """What the guide is asked for: classes, a measurement, or a goal."""
        return self.labels

    def ranged(self, seen: Tensor) -> Tensor:
        """The guide's input in the range that it was trained on."""
        return seen

    def objective(self, logits: Tensor, target: Any) -> Tensor:
        return logits.log_softmax(dim=1)[range(len(target)), target]

    def total(self, scores: Tensor) -> Tensor:
        """The one number that is differentiated. Samples do not interact, so the sum leaves each its own gradient."""
        return scores.sum()

    def variable(self, x: Tensor, seen: Tensor) -> Tensor:
        """What the gradient is taken with respect to."""
        return x

    def scaled(self, gradient: Tensor, t: Time) -> Tensor:
        """The gradient as it goes on."""
        return gradient

    def direction(self, gradient: Tensor) -> tuple[Tensor, Any]:
        """The update as declared, and the stabiliser's next state."""
        if not self.stabilized:
            return gradient, self.state
        update, state = self.stabilizer.update(gradient, self.state)
        return normalized(update), state

    def moved(self, mean: Tensor, direction: Tensor, x: Tensor, t: Time) -> Tensor:
        """The guided mean of the next sample."""
        return mean + self.scale * self.weight(t) * direction

    # The loop.

    def seen(self, x: Tensor, t: Time) -> Tensor:
        """What the guide sees: the noisy sample, or the clean one that is predicted from it."""
        return self.clean(x, t) if self.through_denoiser else x

    def clean(self, x: Tensor, t: Time) -> Tensor:
        signal, noise = self.levels(t)
        x_0 = clean(self.output(x, t), x, signal, noise, self.prediction)
        return x_0.clamp(-1, 1) if self.clamp else x_0

    def energy(self, x: Tensor, t: Time) -> Tensor:
        """The declared log p(y | x_t) of each sample, up to a constant, ``(n,)``: no fault reaches it."""
        right = self.right
        return right.score(right.seen(x, t), t, right.target())

    def gradient(self, x: Tensor, t: Time) -> Tensor:
        """What the code takes for the gradient of `energy`."""
        with torch.enable_grad():
            x = self.where(x, t).detach().requires_grad_()
            timestep = self.time(t)
            seen = self.seen(x, timestep)
            scores = self.score(self.ranged(seen), timestep, self.target())
            gradient = torch.autograd.grad(self.total(scores), self.variable(x, seen))[0]
        return self.scaled(gradient, t)

    def cond_fn(self, x: Tensor, t: Time) -> Tensor:
        """The direction in which the code pushes x, after what it declares of stabiliser and normalisation."""
        return self.direction(self.gradient(x, t))[0]

    @torch.no_grad()
    def step(self, x: Tensor, t: Time) -> Tensor:
        mean, noise = self.unguided(x, t)
        direction, self.state = self.direction(self.gradient(x, t))
        return self.moved(mean, direction, x, t) + noise

    def pushed(self, x: Tensor, t: Time) -> Tensor:
        """The direction in which the next sample was really shifted: the difference that guidance makes, per weight."""
        with torch.no_grad():
            mean, _ = self.unguided(x, t)
            return (self.moved(mean, self.cond_fn(x, t), x, t) - mean) / (self.scale * self.weight(t))

    def walk(self) -> Iterator[tuple[Tensor, Any]]:
        """Each noisy sample with its timestep, before the step from there."""
        self.restart()
        x = self.x_T
        for t in self.timesteps:
            yield x, t
            self.before, x = (x, t), self.step(x, t)
        self.final = x

    def at(self, index: int) -> tuple[Tensor, Any]:
        """The sample and timestep where a step starts. Memory and ``before`` are then those of the steps before."""
        for number, (x, t) in enumerate(self.walk()):
            if number == index:
                return x, t
        raise IndexError(index)

    def __call__(self) -> Tensor:
        """Sample, ``(n, *shape)``."""
        for _ in self.walk():
            pass
        return self.final


def normalized(x: Tensor) -> Tensor:
    """Every sample of l2 norm 1."""
    norm = x.flatten(1).norm(dim=1).view(-1, *[1] * (x.ndim - 1))
    return x / norm.where(norm > 0, 1.0)
