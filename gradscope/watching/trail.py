"""One cell of a watched loop: which calls belong together, and where its evaluations stand in time."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from gradscope.watching.calls import copied, number
from gradscope.watching.cell_record import CellRecord, Settings
from gradscope.watching.evaluation import Evaluation, same
from gradscope.watching.noise_level import level_by_input
from gradscope.watching.scheduler_step import Taken
from gradscope.watching.timeline import OutOfPlace, Timeline


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
        self._settings, self._label = settings, label
        self.record = CellRecord(settings, cell)
        self.current: Evaluation | None = None
        self._timeline: Timeline | None = None
        self._held: Held | None = None

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
        self.record.facts["scheduler_steps"] += 1
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
            self._end_trajectory()

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
        never_steps = self.record.facts["evaluations"] > 0 and self.record.facts["scheduler_steps"] == 0
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
        self.record.facts["evaluations"] += 1
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
            if (fresh := self._other_schedule()) is None:
                raise
            timeline = fresh
            index, begins = timeline.place(time, restarted)
        again = held is not None and not begins and index == timeline.index
        if held is not None and not begins and not again:
            held.following = current.x_t
        if begins:
            self._record_held()
            self._end_trajectory()
            if (fresh := self._other_schedule()) is not None:
                timeline = fresh
                index, begins = timeline.place(time, restarted)
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
        self.record.schedule(timeline)
        return timeline

    def _other_schedule(self) -> Timeline | None:
        """A new timeline, if the loop has set other timesteps before the store was made; None if it set no others.

        Raises
        ------
        OutOfPlace
            The store is made already.
        """
        times, timeline = self._settings.process.times(), self._timeline
        assert timeline is not None
        known = timeline.times
        if times is None or known is None or timeline.index < 0 or np.array_equal(times, known):
            return None
        if self._settings.store.recorder is None:
            return self._new_timeline()
        raise OutOfPlace(
            f"the schedule changed: it has {len(times)} timesteps, which begin with {times[0]:g}, and the store has "
            f"{timeline.count}, which begin with {known[0]:g}; record it into a store of its own"
        )

    def _record_held(self, final: Tensor | None = None) -> None:
        """Record the evaluation whose timestep the loop has left; `final` are the samples after the last one."""
        held, self._held = self._held, None
        if held is not None:
            held.evaluation.release_hooks()
            self.record.record(held.evaluation, held.following if held.following is not None else final)

    def _end_trajectory(self) -> None:
        if self._timeline is not None and self._timeline.came:
            self.record.end(self._timeline)


def _time(evaluation: Evaluation) -> float | None:
    """The evaluation's time, by the scheduler if it took a step."""
    step = evaluation.step
    time = None if step is None else number(step.timestep)
    return evaluation.time if time is None else time
