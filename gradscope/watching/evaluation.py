"""What hooks see of one evaluation of the denoiser: calls of denoiser and guide, gradients, the scheduler's step."""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.hooks import RemovableHandle

from gradscope.watching.calls import copied
from gradscope.watching.classifier_free import halved
from gradscope.watching.graph import Origin, Passage
from gradscope.watching.scheduler_step import Taken

_OUTPUTS = 4
"""Outputs of the denoiser that are kept; classifier-free guidance needs two."""


@dataclass
class Leaf:
    """A leaf of autograd's graph at which the loop may take its gradient."""

    value: Tensor
    """A copy of it."""
    through_denoiser: bool
    of_guide: bool
    """Whether a guide's input depends on it."""
    is_guide_input: bool
    gradient: Tensor | None = None
    """The last gradient."""
    count: int = 0


@dataclass
class GuideCall:
    """A call of the guide on an input that has a graph."""

    value: Tensor
    """A copy of its input."""
    output: Tensor | None = None
    gradient: Tensor | None = None
    """The last gradient with respect to the input."""
    of_output: Tensor | None = None
    """The last gradient with respect to the output."""
    count: int = 0


@dataclass
class Evaluation:
    """One evaluation of the denoiser, at one timestep."""

    x_t: Tensor
    """The denoiser's input, a copy; of a doubled batch its first half."""
    time: float | None
    """The denoiser's time, which may be scaled."""
    outputs: list[Tensor] = field(default_factory=list)
    passages: list[Passage] = field(default_factory=list)
    leaves: dict[int, Leaf] = field(default_factory=dict)
    kept: list[Tensor] = field(default_factory=list)
    """The leaves themselves, so that no other tensor gets their identity."""
    handles: list[RemovableHandle] = field(default_factory=list)
    """Of the hooks on the loop's tensors."""
    guide_calls: list[GuideCall] = field(default_factory=list)
    step: Taken | None = None
    calls: int = 0
    """Number of the denoiser's calls."""
    update: Tensor | None = None
    index: int | None = None
    """Number of the timestep, once it is known."""
    repeat: int = 0
    """Number of earlier evaluations at this timestep in the same trajectory."""

    def add_output(self, output: Tensor) -> None:
        self.outputs = [*self.outputs, copied(output)][-_OUTPUTS:]

    def add_leaf(self, origin: Origin, of_guide: bool, is_guide_input: bool) -> bool:
        """Note a leaf; whether it is new, so that a hook has to be registered on it."""
        key = id(origin.leaf)
        if (known := self.leaves.get(key)) is not None:
            known.through_denoiser |= origin.through_denoiser
            known.of_guide |= of_guide
            known.is_guide_input |= is_guide_input
            return False
        self.leaves[key] = Leaf(copied(origin.leaf), origin.through_denoiser, of_guide, is_guide_input)
        self.kept.append(origin.leaf)
        return True

    def release_graph(self) -> None:
        """Remove the hooks on the loop's tensors, and let go of its graph, which holds memory."""
        for handle in self.handles:
            handle.remove()
        self.handles.clear()
        self.passages.clear()
        self.kept.clear()

    @property
    def point(self) -> Tensor:
        """x_t, as the scheduler gets it if it does, else as the denoiser gets it."""
        x_t = self.x_t if self.step is None else self.step.x_t
        half = halved(x_t) if self.step is not None else None
        return x_t if half is None or not self._is_doubled else half

    @property
    def _is_doubled(self) -> bool:
        """Whether the scheduler got a doubled batch, as in DiT's pipeline: the guided prediction is doubled, too."""
        return self.step is not None and halved(self.step.prediction) is not None

    @property
    def prediction(self) -> Tensor | None:
        """What the scheduler got; of a doubled batch its first half."""
        if self.step is None:
            return None
        prediction = self.step.prediction
        half = halved(prediction)
        return half if half is not None and len(half) == len(self.point) else prediction

    @property
    def calls_with_gradient(self) -> int:
        return sum(leaf.count for leaf in self.leaves.values())


def undoubled(x: Tensor) -> Tensor:
    """The first half of a batch that classifier-free guidance doubled, else the batch."""
    half = halved(x)
    return x if half is None else half


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors hold the same values, up to a cast between floating-point types."""
    if a.shape != b.shape:
        return False
    if a.dtype == b.dtype:
        return torch.equal(a, b)
    narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
    return torch.equal(a.to(narrow), b.to(narrow))
