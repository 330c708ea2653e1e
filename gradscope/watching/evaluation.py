"""What hooks see of one evaluation of the denoiser: calls of denoiser and guide, gradients, the scheduler's step."""

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradscope.watching.calls import copied
from gradscope.watching.classifier_free import halved
from gradscope.watching.graph import Origin, Passage
from gradscope.watching.scheduler_step import Taken

_OUTPUTS = 4
"""Calls of the denoiser that are kept; classifier-free guidance needs two."""
_PARALLEL = 1e-3
"""Largest relative distance of a scaled input from a multiple of x_t."""


@dataclass
class GuideCall:
    """A call of the guide on an input that has a graph."""

    value: Tensor
    """A copy of its input."""
    output: Tensor | None = None
    gradient: Tensor | None = None
    """The last gradient with respect to the input, if that is no leaf."""
    of_output: Tensor | None = None
    """The last gradient with respect to the output."""
    count: int = 0


@dataclass
class Point:
    """A tensor at which the loop may take its gradient: a leaf of autograd's graph, or the denoiser's input."""

    tensor: Tensor | None
    """The tensor itself; None once its evaluation is over."""
    value: Tensor
    """A copy of it."""
    through_denoiser: bool
    calls: list[GuideCall] = field(default_factory=list)
    """Calls of the guide that depend on it."""
    gradient: Tensor | None = None
    """The last gradient, or what ``backward`` has summed up in ``grad``."""
    count: int = 0
    """Number of gradients."""
    update: Tensor | None = None
    """The update that the user gave for the gradient."""


class Call(NamedTuple):
    """A call of the denoiser."""

    x: Tensor
    """A copy of its input, which may be scaled, doubled or widened."""
    output: Tensor


@dataclass
class Evaluation:
    """One evaluation of the denoiser, at one timestep."""

    time: float | None
    """The denoiser's time, which may be scaled; the scheduler's once it is placed."""
    label: Tensor | None = None
    """Target classes that the user gave."""
    x: Tensor | None = None
    """A copy of the denoiser's last input; None before its first call."""
    calls: list[Call] = field(default_factory=list)
    count: int = 0
    """Number of the denoiser's calls."""
    passages: list[Passage] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    handles: list[RemovableHandle] = field(default_factory=list)
    """Handles of the hooks on the loop's tensors."""
    guide_calls: list[GuideCall] = field(default_factory=list)
    step: Taken | None = None
    update: Tensor | None = None
    """The update that the user gave where no gradient at a point was seen."""
    index: int | None = None
    """Number of the timestep, once it is known."""
    repeat: int = 0
    """Number of earlier evaluations at this timestep in the same trajectory."""

    def add_output(self, x: Tensor, output: Tensor) -> None:
        """Note what the denoiser gave."""
        self.calls = [*self.calls, Call(copied(x), copied(output))][-_OUTPUTS:]

    def add_point(self, origin: Origin, call: GuideCall | None = None) -> Point | None:
        """Note a tensor that may be differentiated; it is returned if it is new, so that hooks are needed."""
        known = next((point for point in self.points if point.tensor is origin.leaf), None)
        point = known or Point(origin.leaf, copied(origin.leaf), origin.through_denoiser)
        point.through_denoiser |= origin.through_denoiser
        if call is not None:
            point.calls.append(call)
        if known is None:
            self.points.append(point)
        return None if known else point

    def set_update(self, update: Tensor) -> None:
        """Note an update. It belongs to the last gradient, which may be that of the next evaluation's x_t."""
        last = next((point for point in reversed(self.points) if point.gradient is not None), None)
        if last is None:
            self.update = update
        else:
            last.update = update

    def release_tensors(self) -> None:
        """Let go of the loop's graph, which holds memory. Gradients are still seen."""
        self.passages.clear()
        for point in self.points:
            point.tensor = None

    def release_hooks(self) -> None:
        """Remove the hooks on the loop's tensors."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()

    def take_from(self, earlier: "Evaluation") -> None:
        """Take the gradients at x_t that the loop took before it called the denoiser."""
        if any(point.gradient is not None and same(point.value, self.x_t) for point in self.points):
            return
        own = [p for p in earlier.points if same(p.value, self.x_t) and not same(p.value, earlier.x_t)]
        calls = [call for point in own for call in point.calls]
        self.points = [*own, *self.points]
        self.guide_calls = [*calls, *self.guide_calls]
        earlier.points = [point for point in earlier.points if not any(point is one for one in own)]
        earlier.guide_calls = [call for call in earlier.guide_calls if not any(call is one for one in calls)]

    @property
    def has_gradient(self) -> bool:
        """Whether the loop took a gradient, or made two predictions for classifier-free guidance."""
        explicit = any(point.gradient is not None for point in self.points)
        return explicit or any(c.gradient is not None for c in self.guide_calls) or self._predictions > 1

    @property
    def _predictions(self) -> int:
        return sum(len(call.output) for call in self.calls) // max(1, len(self.x_t))

    @property
    def x_t(self) -> Tensor:
        """The noisy samples, ``(n, *sample)``: as the scheduler gets them, else as the denoiser does."""
        if self.step is not None:
            half = halved(self.step.x_t) if halved(self.step.prediction) is not None else None
            return half if half is not None and self._differ else self.step.x_t
        assert self.x is not None
        half = halved(self.x) if self._differ else None
        return self.x if half is None else half

    @property
    def _differ(self) -> bool:
        """Whether the halves of an output differ: then the denoiser got a batch that was doubled for two conditions."""
        return any(len(call.output) % 2 == 0 and halved(call.output) is None for call in self.calls)

    @property
    def prediction(self) -> Tensor | None:
        """What the scheduler got, ``(n, ...)``."""
        if self.step is None:
            return None
        return first_rows(self.step.prediction, len(self.x_t))

    @property
    def outputs(self) -> list[Tensor]:
        """What the denoiser gave for x_t, not for other inputs."""
        own = [call.output for call in self.calls if _is_of(call.x, self.x_t)]
        return own or [call.output for call in self.calls]

    @property
    def scaled(self) -> Tensor | None:
        """The denoiser's input for x_t, ``(n, *sample)``, which may be a multiple of it."""
        x_t = self.x_t
        own = [call.x for call in self.calls if _is_of(call.x, x_t) and call.x.shape[1:] == x_t.shape[1:]]
        return first_rows(own[-1], len(x_t)) if own else None


def first_rows(tensor: Tensor, rows: int) -> Tensor:
    """The tensor, or its first rows if its batch is a multiple of equal parts."""
    return tensor if len(tensor) == rows else tensor[:rows]


def _is_of(x: Tensor, x_t: Tensor) -> bool:
    """Whether a denoiser's input is x_t: scaled, repeated, or with further channels."""
    if x.ndim != x_t.ndim or len(x) % len(x_t) or (x.ndim > 1 and x.shape[1] < x_t.shape[1]):
        return False
    part = x[: len(x_t), : x_t.shape[1]]
    if part.shape != x_t.shape:
        return False
    wide, own = part.double().flatten(), x_t.double().flatten()
    factor = torch.dot(wide, own) / torch.dot(own, own).clamp(min=1e-300)
    narrow = min(x.dtype.itemsize, x_t.dtype.itemsize) < 4
    return bool((wide - factor * own).norm() <= (20 if narrow else 1) * _PARALLEL * wide.norm())


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values, up to a cast between floating-point types."""
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype:
        return torch.equal(a, b)
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(a.to(narrow), b.to(narrow))
