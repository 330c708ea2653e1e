"""The interface of guidance methods."""

import math
from dataclasses import dataclass, fields
from typing import ClassVar

from torch import nn

from gradscope.config import ClassifierInput
from gradscope.sampling.guidance.view import Pull, View
from gradscope.sampling.process import Entry, Schedule, Times
from gradscope.settings import typed


@dataclass(frozen=True)
class Method:
    """Base of all methods: how a guide becomes a vector that shifts a step. Fields of a subclass are its settings.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Twice(Method):
    ...     factor: float = 2.0
    ...     def pull(self, view):
    ...         answer = view.ask()
    ...         return pull(self.factor * view.gradient(answer.scores, view.x_t), answer)
    >>> Twice().inputs
    ('x_t', 'x0', 'x0_detached')
    """

    inputs: ClassVar[tuple[ClassifierInput, ...]] = ("x_t", "x0", "x0_detached")
    """The possible values of ``classifier_input``."""
    enters: ClassVar[Entry] = "process"
    """How the vector enters a step, see `gradscope.sampling.process.Entry`."""

    def __post_init__(self) -> None:
        typed(type(self), {field.name: getattr(self, field.name) for field in fields(self)})

    def require(self, name: str, least: float = -math.inf) -> None:
        """Raise ValueError unless a setting is finite and at least `least`."""
        value = getattr(self, name)
        if not math.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")

    def pull(self, view: View) -> Pull:
        """The vector of one step; autograd is on. One denoiser pass was made for the view."""
        raise NotImplementedError

    def repeats(self, times: Times) -> int:
        """How often a step is taken, at least 1; after each but the last, x_t is drawn again from prev_sample."""
        return 1

    def check(self, schedule: Schedule) -> None:
        """Raise GradscopeError if the method is not defined on a schedule."""

    def check_guide(self, guide: nn.Module) -> None:
        """Raise GradscopeError if the method is not defined for a guide."""
