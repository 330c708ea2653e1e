"""One cell of a watched loop: its evaluations, one after the other, become recorded steps."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gradscope.sampling.process import Times
from gradscope.store import CELL_DIMS
from gradscope.watching.calls import copied, number
from gradscope.watching.classifier_free import Undecidable
from gradscope.watching.evaluation import Evaluation, same
from gradscope.watching.growing_store import UNKNOWN_LABEL, Block, GrowingStore
from gradscope.watching.noise_level import Level, level_by_input
from gradscope.watching.process import Process
from gradscope.watching.scheduler_step import Taken
from gradscope.watching.seen_step import Context, Seen, next_samples, seen_step
from gradscope.watching.timeline import OutOfPlace, Timeline


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


@dataclass
class Held:
    """An evaluation that waits until the loop leaves its timestep."""

    evaluation: Evaluation
    following: Tensor | None = None
    """The next noisy samples, if they follow from its step."""


class Trail:
    """The evaluations of one cell.

    An evaluation is over when the denoiser is called for the next one, because a loop may change x_t until then. It is
    recorded once the loop leaves its timestep, so that of several evaluations at one timestep the last one with a
    gradient counts; with repetitions (`repeats`) each is recorded.
    """

    def __init__(self, settings: Settings, cell: Mapping[str, Any], label: Tensor | None) -> None:
        self._settings, self._cell, self._label = settings, dict(cell), label
        self.current: Evaluation | None = None
        self._timeline: Timeline | None = None
        self._constants: dict[int, Times] = {}
        self._sigmas: np.ndarray | None = None
        self._held: Held | None = None
        self._block: Block | None = None
        self._block_label: Tensor | None = None
        self._block_input = ""
        self._additive: bool | None = None
        self._order: int | None = None
        self.facts: Counter[str] = Counter()
        """How often something was seen: evaluations, steps, gradients, evaluations without a gradient."""
        self.missing: dict[str, str] = {}
        self.complete = True
        """Whether every trajectory came to its last timestep, each with a gradient."""

    def denoise(self, x: Tensor, time: float | None) -> Evaluation:
        """The evaluation that a call of the denoiser belongs to."""
        point, current = copied(x), self.current
        if current is None or not self._belongs(current, point, time):
            self._end_evaluation()
            self.current = current = Evaluation(time, self._label)
        current.x, current.time = point, time
        current.count += 1
        return current

    def guide(self) -> Evaluation:
        """The evaluation that a call of the guide belongs to; one before the denoiser's first call, as well."""
        if self.current is None:
            self.current = Evaluation(None, self._label)
        return self.current

    def stepped(self, taken: Taken) -> None:
        """The scheduler took a step. Its noise level is read now, since the loop may set other timesteps later."""
        current = self.current
        if current is None or current.count == 0:
            return
        current.step = taken
        self.facts["scheduler_steps"] += 1
        process, time = self._settings.process, _time(current)
        level = None if time is None else process.level(time, taken.index)
        scaled = None if level is None else current.scaled
        if level is not None and scaled is not None:
            level = level_by_input(process.scheduler, level, current.x_t, scaled)
        taken.level = level

    def labels(self, label: Tensor) -> None:
        """Target classes of the batch that begins, or that is being sampled."""
        self._label = label
        if self.current is not None and not self._is_at_end():
            self.current.label = label

    def _is_at_end(self) -> bool:
        """Whether the current evaluation is the last one of its trajectory."""
        return self._timeline is not None and self._timeline.index >= self._timeline.count - 2

    def final(self, samples: Tensor) -> None:
        """The loop's final samples, ``(n, *sample)``."""
        seen = self.current if self.current is not None and self.current.count else None
        last = seen or (None if self._held is None else self._held.evaluation)
        if last is None:
            self._settings.warn("final: no trajectory is being sampled in this cell, so the samples are not recorded")
            return
        wanted = tuple(last.x_t.shape)
        if not isinstance(samples, Tensor) or tuple(samples.shape) != wanted:
            got = tuple(samples.shape) if isinstance(samples, Tensor) else type(samples).__name__
            self._settings.warn(f"final: takes the batch's final samples, a tensor of shape {wanted}, got {got}")
            return
        self._end(copied(samples))

    def end(self) -> None:
        """The trajectory is over."""
        self._end(None)

    def _end(self, final: Tensor | None) -> None:
        try:
            self._end_evaluation()
        finally:
            self._record_held(final)
            self._end_block()

    def release(self) -> None:
        """Remove the hooks on the loop's tensors, also if the watch ended early."""
        for evaluation in (self.current, None if self._held is None else self._held.evaluation):
            if evaluation is not None:
                evaluation.release_hooks()

    def _belongs(self, current: Evaluation, x: Tensor, time: float | None) -> bool:
        """Whether a call of the denoiser belongs to the current evaluation."""
        if current.count == 0 or current.x is None:
            return True
        if current.step is not None or x.shape[1:] != current.x.shape[1:]:
            return False
        if time is not None and current.time is not None and time != current.time:
            return False
        if same(current.x, x):
            return True
        never_steps = self.facts["evaluations"] > 0 and self.facts["scheduler_steps"] == 0
        return self._settings.process.can_step and not never_steps and not self._settings.repeats

    def _end_evaluation(self) -> None:
        """Place the current evaluation on the timeline."""
        current, self.current = self.current, None
        if current is None:
            return
        current.release_tensors()
        if current.count == 0:
            current.release_hooks()
            return
        self.facts["evaluations"] += 1
        held = self._held
        if held is not None:
            current.take_from(held.evaluation)
        self._place(current)

    def _place(self, current: Evaluation) -> None:
        """Find the evaluation's timestep; what came before is recorded once the loop has left its timestep."""
        if (time := _time(current)) is None:
            raise OutOfPlace("the denoiser's time is not known: it takes no timestep, and no scheduler.step was called")
        held = self._held
        timeline: Timeline = self._timeline or self._new_timeline()
        restarted = held is not None and len(held.evaluation.x_t) != len(current.x_t)
        try:
            index, begins = timeline.place(time, restarted)
        except OutOfPlace:
            self._check_schedule()
            assert self._timeline is not None
            if self._timeline is timeline:
                raise
            timeline = self._timeline
            index, begins = timeline.place(time, restarted)
        again = held is not None and not begins and index == timeline.index
        if held is not None and not begins and not again:
            held.following = current.x_t
        if begins:
            self._record_held()
            self._end_block()
            self._check_schedule()
        elif again and held is not None and not self._settings.repeats:
            if held.evaluation.has_gradient and not current.has_gradient:
                current.release_hooks()  # the loop only looks again
                return
            held.evaluation.release_hooks()
        else:
            self._record_held()
        if again and held is not None:
            current.repeat = held.evaluation.repeat + 1
        timeline.take(time, index, begins)
        current.index, current.time = index, time
        self._held = Held(current)

    def _new_timeline(self) -> Timeline:
        process = self._settings.process
        self._timeline = timeline = Timeline(process.times(), process.length())
        self._constants = process.constants(timeline.count)
        self._sigmas = None if timeline.times is None else process.posterior_sigmas(timeline.times)
        return timeline

    def _check_schedule(self) -> None:
        """The loop may have set other timesteps for another trajectory."""
        times, timeline = self._settings.process.times(), self._timeline
        assert timeline is not None
        known = timeline.times
        if times is None or known is None or timeline.index < 0 or np.array_equal(times, known):
            return
        if self._settings.store.recorder is None:
            self._new_timeline()
            return
        raise OutOfPlace(
            f"the schedule changed: it has {len(times)} timesteps, which begin with {times[0]:g}, and the store has "
            f"{timeline.count}, which begin with {known[0]:g}; record it into a store of its own"
        )

    def _record_held(self, final: Tensor | None = None) -> None:
        """Record the evaluation whose timestep the loop has left; `final` are the samples after the last one."""
        held, self._held = self._held, None
        if held is None:
            return
        evaluation, settings = held.evaluation, self._settings
        evaluation.release_hooks()
        assert self._timeline is not None
        assert evaluation.index is not None
        last = evaluation.index == self._timeline.count - 1
        context = self._context(evaluation, held.following if held.following is not None else final)
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
            label=label,
            minimize=settings.minimize,
            has_guide=settings.has_guide,
            order=self._order,
            repeat=evaluation.repeat if settings.repeats else 0,
            is_stepped=evaluation.step is not None,
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

    def _end_block(self) -> None:
        timeline, store = self._timeline, self._settings.store
        if timeline is None or not timeline.came:
            return
        self.complete &= timeline.is_last
        if timeline.times is None and self._block is not None:
            times = timeline.shown()
            store.set_times(times, self._settings.process.levels(times))
        self._block = self._block_label = None


def _time(evaluation: Evaluation) -> float | None:
    """The evaluation's time, by the scheduler if it took a step."""
    step = evaluation.step
    time = None if step is None else number(step.timestep)
    return evaluation.time if time is None else time
