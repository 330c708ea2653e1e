"""One cell of a watched loop: its evaluations, one after the other, become recorded steps."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from torch import Tensor

from gradscope.store import CELL_DIMS
from gradscope.watching.calls import copied, number
from gradscope.watching.classifier_free import Undecidable
from gradscope.watching.evaluation import Evaluation, same, undoubled
from gradscope.watching.growing_store import UNKNOWN_LABEL, Block, GrowingStore
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
    recorded once the loop leaves its timestep, so that of several evaluations at one timestep the last one counts; with
    repetitions (`repeats`) each is recorded.
    """

    def __init__(self, settings: Settings, cell: Mapping[str, Any]) -> None:
        self._settings, self._cell = settings, dict(cell)
        self.current: Evaluation | None = None
        self.label: Tensor | None = None
        """Labels that the user gave."""
        self._timeline: Timeline | None = None
        self._held: Held | None = None
        self._block: Block | None = None
        self._samples = 0
        self._additive = False
        self._final: Tensor | None = None
        self._found_label: Tensor | None = None
        self._order: int | None = None
        self.facts: Counter[str] = Counter()
        """How often something was seen: evaluations, steps, gradients, evaluations without a gradient."""
        self.missing: dict[str, str] = {}
        self.kinds: set[str] = set()
        self.inputs: set[str] = set()
        self.complete = True
        """Whether every trajectory came to its last timestep, each with a gradient."""

    def denoise(self, x: Tensor, time: float | None) -> Evaluation:
        """The evaluation that a call of the denoiser belongs to."""
        point = copied(undoubled(x))
        current = self.current
        if current is not None and self._belongs(current, point, time):
            current.x_t, current.time = point, time
        else:
            early = self._end_evaluation(point)
            self.current = current = Evaluation(point, time)
            if early is not None:
                current.leaves, current.guide_calls = early.leaves, early.guide_calls
        current.calls += 1
        return current

    def guide(self, x: Tensor) -> Evaluation:
        """The evaluation that a call of the guide belongs to; one before the denoiser's first call, as well."""
        if self.current is None:
            self.current = Evaluation(copied(x), None)
        return self.current

    def stepped(self, taken: Taken) -> None:
        """The scheduler took a step."""
        if self.current is not None:
            self.current.step = taken
            self.facts["scheduler_steps"] += 1

    def final(self, samples: Tensor) -> None:
        """The loop's final samples."""
        self._final = copied(samples)
        self.end()

    def end(self) -> None:
        """The trajectory is over."""
        self._end_evaluation(None)
        self._record_held()
        self._end_block()

    def release(self) -> None:
        """Remove the hooks on the loop's tensors, also if the watch ended early."""
        if self.current is not None:
            self.current.release_graph()

    def _belongs(self, current: Evaluation, x: Tensor, time: float | None) -> bool:
        """Whether a call of the denoiser belongs to the current evaluation."""
        if current.calls == 0:
            return same(current.x_t, x)
        if current.step is not None or x.shape != current.x_t.shape:
            return False
        if time is not None and current.time is not None and time != current.time:
            return False
        return self._settings.process.can_step or same(current.x_t, x)

    def _end_evaluation(self, following: Tensor | None) -> Evaluation | None:
        """Place the current evaluation on the timeline. Returns gradients that belong to the following one."""
        current, self.current = self.current, None
        if current is None:
            return None
        early = _early(current, following)
        current.release_graph()
        if current.calls == 0:
            return early
        self.facts["evaluations"] += 1
        self._place(current)
        self._held = Held(current)
        return early

    def _place(self, current: Evaluation) -> None:
        """Find the evaluation's timestep; what came before is recorded once the loop has left its timestep."""
        if (time := _time(current)) is None:
            raise OutOfPlace("the denoiser's time is not known: it takes no timestep, and no scheduler.step was called")
        process, held = self._settings.process, self._held
        if self._timeline is None:
            self._timeline = Timeline(process.times(), process.length())
        timeline = self._timeline
        restarted = held is not None and len(held.evaluation.point) != len(current.point)
        try:
            index, begins = timeline.place(time, restarted)
        except OutOfPlace:
            self._check_schedule()
            raise
        again = held is not None and not begins and index == timeline.index
        if held is not None and not begins and not again:
            held.following = current.point
        if begins:
            self.end()
            self._check_schedule()
        elif not again or self._settings.repeats:
            self._record_held()
        if again and held is not None:
            current.repeat = held.evaluation.repeat + 1
        timeline.take(time, index, begins)
        current.index, current.time = index, time

    def _check_schedule(self) -> None:
        """The loop may have set other timesteps for another trajectory."""
        times, timeline = self._settings.process.times(), self._timeline
        assert timeline is not None
        known = timeline.times
        if times is not None and known is not None and timeline.index >= 0 and not np.array_equal(times, known):
            raise OutOfPlace(
                f"the schedule changed: it has {len(times)} timesteps from {times[0]:g} on now, the store has "
                f"{timeline.count}; record it into a store of its own"
            )

    def _record_held(self) -> None:
        """Record the evaluation whose timestep the loop has left."""
        held, self._held = self._held, None
        if held is None:
            return
        evaluation, settings = held.evaluation, self._settings
        assert self._timeline is not None
        assert evaluation.index is not None
        assert evaluation.time is not None
        last = evaluation.index == self._timeline.count - 1
        following = self._final if last and held.following is None else held.following
        context = Context(
            process=settings.process,
            timestep=evaluation.time,
            level=settings.process.level_of(evaluation),
            times=settings.process.constants(self._timeline.count).get(evaluation.index),
            sigma=self._sigma(evaluation.index),
            next_x_t=following,
            additive=self._additive,
            label=self.label if self.label is not None else self._found_label,
            minimize=settings.minimize,
            order=self._order,
            repeat=evaluation.repeat if settings.repeats else 0,
        )
        try:
            seen = seen_step(evaluation, context)
        except Undecidable as undecidable:
            self.facts["undecidable"] += 1
            self.complete = False
            settings.warn(f"the step at timestep {evaluation.time:g} is not recorded: {undecidable}", str(undecidable))
            self.missing.setdefault("gradient", str(undecidable))
            return
        self._note(seen, evaluation)
        samples = next_samples(evaluation, context) if last else None
        if seen.step is not None:
            if self._block is None:
                self._begin_block(seen)
            assert self._block is not None
            self._found_label = seen.step.label
            self._block.record(seen.step)
        elif self._block is not None and samples is not None:
            settings.store.final(self._block, samples)
        if last and samples is None:
            self.missing.setdefault("image", "the loop's final samples were not seen; call watched.final(x)")

    def _sigma(self, index: int) -> float | None:
        """Standard deviation of the DDPM posterior at a step of the schedule, if it is known."""
        timeline = self._timeline
        if timeline is None or timeline.times is None:
            return None
        sigma = float(self._settings.process.posterior_sigmas(timeline.times)[index])
        return None if np.isnan(sigma) else sigma

    def _note(self, seen: Seen, evaluation: Evaluation) -> None:
        self.facts["steps"] += 1
        self.facts["gradients"] += seen.gradients
        self.facts["calls"] += seen.calls
        self.facts["repeated"] += evaluation.repeat > 0
        self._additive |= seen.additive
        self._order = seen.order if self._order is None else self._order
        if seen.step is None:
            self.facts["without_gradient"] += 1
            self.complete = False
        else:
            self.kinds.add(seen.kind)
            self.inputs.add(seen.classifier_input)
            self.missing |= {name: why for name, why in seen.missing.items() if name not in self.missing}

    def _begin_block(self, seen: Seen) -> None:
        step = seen.step
        assert step is not None
        usual = self._settings.usual_cell(seen)
        self._cell |= {dim: value for dim, value in usual.items() if self._cell.get(dim) is None}
        count = len(step.x_t)
        label = [UNKNOWN_LABEL] * count if step.label is None else step.label.tolist()
        cell = {dim: self._cell[dim] for dim in (*CELL_DIMS, *(dim for dim in self._cell if dim not in CELL_DIMS))}
        store = self._settings.store
        for text in store.left_out(step):
            self._settings.warn(text)
        self._block = store.begin(cell, self._samples, label, step, self._settings.attributes(seen))
        self._samples = self._block.first_sample + count

    def _end_block(self) -> None:
        timeline, store = self._timeline, self._settings.store
        if timeline is None or not timeline.came:
            return
        self.complete &= timeline.is_last
        if timeline.times is None and self._block is not None:
            times = timeline.shown()
            store.set_times(times, self._settings.process.levels(times))
        if self._block is not None and self.label is not None:
            store.set_labels(self._block.first_sample, self.label.tolist())
        self._block = self._final = self._found_label = None


def _time(evaluation: Evaluation) -> float | None:
    """The evaluation's time, by the scheduler if it took a step."""
    step = evaluation.step
    time = None if step is None else number(step.timestep)
    return evaluation.time if time is None else time


def _early(current: Evaluation, following: Tensor | None) -> Evaluation | None:
    """The gradients that were taken at the following x_t, by loops that ask the guide before the denoiser."""
    if following is None:
        return None
    moved = {
        key: leaf
        for key, leaf in current.leaves.items()
        if same(leaf.value, following) and not same(leaf.value, current.point)
    }
    if not moved:
        return None
    # Keys that no other tensor's identity has: the moved leaves themselves are not kept.
    early = Evaluation(following, None, leaves={-1 - i: leaf for i, leaf in enumerate(moved.values())})
    early.guide_calls = [call for call in current.guide_calls if same(call.value, following)]
    current.guide_calls = [call for call in current.guide_calls if not same(call.value, following)]
    current.leaves = {key: leaf for key, leaf in current.leaves.items() if key not in moved}
    return early
