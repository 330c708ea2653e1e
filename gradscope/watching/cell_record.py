"""The record of one cell of a watched loop: placed evaluations become steps in the store."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gradscope.sampling.process import Level, Times
from gradscope.store import CELL_DIMS
from gradscope.watching.classifier_free import Undecidable
from gradscope.watching.context import Context
from gradscope.watching.evaluation import Evaluation
from gradscope.watching.growing_store import UNKNOWN_LABEL, Block, GrowingStore
from gradscope.watching.process import Process
from gradscope.watching.seen_step import Seen, seen_step
from gradscope.watching.shift import next_samples
from gradscope.watching.timeline import Timeline


class Settings(Protocol):
    """What a trail reads of the watch."""

    process: Process
    store: GrowingStore
    minimize: bool | None
    repeats: int
    has_guide: bool

    def attributes(self, seen: Seen) -> dict[str, Any]:
        """Attributes of a store whose first step this is."""
        ...

    def usual_cell(self, seen: Seen) -> dict[str, Any]:
        """Coordinates of a cell, for those that the user does not give."""
        ...

    def warn(self, text: str, reason: str = "") -> None:
        """Tell the user at once, each reason (default: each text) once."""
        ...


class CellRecord:
    """Records the steps of one cell, trajectory after trajectory.

    Attributes
    ----------
    facts : Counter of str
        How often something was seen: evaluations, steps, gradients, evaluations without a gradient.
    missing : dict of str to str
        What was not seen, each with the reason.
    complete : bool
        Whether every trajectory came to its last timestep, each with a gradient.
    """

    def __init__(self, settings: Settings, cell: Mapping[str, Any]) -> None:
        self._settings, self._cell = settings, dict(cell)
        self._constants: dict[int, Times] = {}
        self._sigmas: np.ndarray | None = None
        self._steps = 0
        self._block: Block | None = None
        self._block_label: Tensor | None = None
        self._block_input = ""
        self._additive: bool | None = None
        self._order: int | None = None
        self.facts: Counter[str] = Counter()
        self.missing: dict[str, str] = {}
        self.complete = True

    def schedule(self, timeline: Timeline) -> None:
        """Take the constants of the timesteps, as the scheduler has them now."""
        process = self._settings.process
        self._steps, self._constants = timeline.count, process.constants(timeline.count)
        self._sigmas = None if timeline.times is None else process.posterior_sigmas(timeline.times)

    def record(self, evaluation: Evaluation, following: Tensor | None) -> None:
        """Record an evaluation whose timestep the loop has left, and that is followed by these samples, if known."""
        settings, last = self._settings, evaluation.index == self._steps - 1
        context = self._context(evaluation, following)
        try:
            seen = seen_step(evaluation, context)
        except Undecidable as undecidable:
            self.facts["undecidable"] += 1
            self.complete = False
            settings.warn(f"the step at timestep {context.timestep:g} is not recorded: {undecidable}", str(undecidable))
            self.missing.setdefault("gradient", str(undecidable))
            return
        self._note(seen, evaluation)
        samples = next_samples(evaluation, context) if last else None
        if seen.step is not None:
            self._record(seen)
        elif self._block is not None and samples is not None:
            settings.store.final(self._block, samples)
        if last:
            self.missing.pop("image", None)
            if samples is None:
                self.missing["image"] = "the loop's final samples were not seen; call watched.final(x)"

    def _context(self, evaluation: Evaluation, following: Tensor | None) -> Context:
        settings, index, time = self._settings, evaluation.index, evaluation.time
        assert index is not None
        assert time is not None
        level: Level | None = settings.process.level(time, None) if evaluation.step is None else evaluation.step.level
        sigma = None if self._sigmas is None or np.isnan(self._sigmas[index]) else float(self._sigmas[index])
        label, rows = evaluation.label, len(evaluation.x_t)
        if label is not None and len(label) != rows:
            settings.warn(f"labels: got {len(label)} for a batch of {rows}, so they are not recorded")
            label = None
        if label is None and self._block_label is not None and len(self._block_label) == rows:
            label = self._block_label
        return Context(
            process=settings.process,
            timestep=time,
            level=level,
            times=self._constants.get(index),
            sigma=sigma,
            next_x_t=following,
            additive=self._additive,
            label=None if label is None else label.to(evaluation.x_t.device),
            minimize=settings.minimize,
            has_guide=settings.has_guide,
            order=self._order,
            repeat=evaluation.repeat if settings.repeats else 0,
        )

    def _note(self, seen: Seen, evaluation: Evaluation) -> None:
        """Count what was seen, and say what is out of the usual."""
        self.facts["steps"] += 1
        self.facts["gradients"] += seen.gradients
        self.facts["calls"] += seen.calls
        self.facts["repeated"] += evaluation.repeat > 0
        if seen.step is None:
            self.facts["without_gradient"] += 1
            self.complete = False
            return
        self._additive = seen.additive if seen.additive is not None else self._additive
        self._order = seen.order if self._order is None else self._order
        self.missing |= {name: why for name, why in seen.missing.items() if name not in self.missing}
        if seen.at_point > 1:
            self._settings.warn(
                "the loop takes several gradients at the same point in a step, of which the last one is recorded; if "
                "it adds them up, let it differentiate the sum",
                "several gradients",
            )
        if seen.gradients > seen.at_point:
            self.missing.setdefault("further gradients", "the loop takes more gradients in a step")

    def _record(self, seen: Seen) -> None:
        step, settings = seen.step, self._settings
        assert step is not None
        if self._block is None:
            self._block = self._begin_block(seen)
            self._block_input = seen.classifier_input
        if seen.classifier_input != self._block_input:
            settings.warn(
                f"the gradient's input changes from {self._block_input} to {seen.classifier_input} within a "
                f"trajectory; the store says {self._block_input}",
                "input changes",
            )
        if step.label is not None and self._block_label is None:
            self._block_label = step.label
            settings.store.set_labels(self._block.first_sample, step.label.tolist())
        self._block.record(step)

    def _begin_block(self, seen: Seen) -> Block:
        step, settings = seen.step, self._settings
        assert step is not None
        usual = settings.usual_cell(seen)
        cell = {dim: self._cell.get(dim) if self._cell.get(dim) is not None else usual[dim] for dim in CELL_DIMS}
        cell |= {dim: value for dim, value in self._cell.items() if dim not in CELL_DIMS}
        label = [UNKNOWN_LABEL] * len(step.x_t) if step.label is None else step.label.tolist()
        for text in settings.store.left_out(step):
            settings.warn(text)
        return settings.store.begin(cell, label, step, settings.attributes(seen))

    def end(self, timeline: Timeline) -> None:
        """The trajectory is over."""
        store = self._settings.store
        self.complete &= timeline.is_last
        if timeline.times is None and self._block is not None:
            times = timeline.shown()
            store.set_times(times, self._settings.process.levels(times))
        self._block = self._block_label = None
