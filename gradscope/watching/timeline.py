"""Which timestep an evaluation of the denoiser belongs to, and where a new trajectory begins."""

import numpy as np

_TOLERANCE = 1e-4


class OutOfPlace(ValueError):
    """A timestep does not fit the loop's schedule."""


class Timeline:
    """Counts the evaluations of one trajectory after the other.

    Parameters
    ----------
    times
        The timesteps in sampling order, ``(timesteps,)``, which may repeat; None if they are not known. Then every
        change of the time is a step, and a change against the direction of the first two begins a new trajectory.
    count
        Number of timesteps.
    """

    def __init__(self, times: np.ndarray | None, count: int) -> None:
        self.times, self.count = times, count
        self.index = -1
        """Number of the current timestep; -1 before the first."""
        self.first = 0
        """Number of the current trajectory's first timestep."""
        self.came: list[float] = []
        """Times of the current trajectory, if they were not known."""

    def place(self, time: float, restarted: bool = False) -> tuple[int, bool]:
        """Number of the timestep of the next evaluation, and whether a new trajectory begins with it.

        Parameters
        ----------
        time
            The evaluation's time.
        restarted
            Whether something else shows that a new trajectory begins.

        Raises
        ------
        OutOfPlace
            The time is none of the timesteps, lies behind in the same trajectory, or comes after the last one.
        """
        return self._count(time, restarted) if self.times is None else self._find(self.times, time, restarted)

    def take(self, time: float, index: int, begins: bool) -> None:
        """Go to a place that `place` gave."""
        if begins:
            self.first, self.came = index, []
        if not self.came or time != self.came[-1]:
            self.came.append(time)
        self.index = index

    @property
    def is_last(self) -> bool:
        """Whether the current timestep is the last one."""
        return self.index == self.count - 1

    def _find(self, times: np.ndarray, time: float, restarted: bool) -> tuple[int, bool]:
        distance = np.abs(times - time)
        nearest = distance.min()
        fits = np.flatnonzero(distance == nearest) if nearest <= _TOLERANCE * max(1.0, abs(time)) else np.zeros(0, int)
        if not len(fits):
            near = ", ".join(f"{t:g}" for t in times[:3])
            raise OutOfPlace(f"timestep {time:g} is not one of the schedule's {len(times)}, which begin with {near}")
        if self.index < 0 or restarted:
            return int(fits[0]), True
        if self.index + 1 in fits:
            return self.index + 1, False
        if self.index in fits and not (self.is_last and self.index == self.first):
            return self.index, False
        if len(later := fits[fits > self.index]):
            return int(later[0]), False
        if self.is_last or fits[0] == self.first or fits[0] == 0:
            return int(fits[0]), True
        raise OutOfPlace(
            f"the loop goes back from timestep {times[self.index]:g} to {time:g} within a trajectory; repetitions of "
            "one timestep are recorded, jumps over several are not"
        )

    def _count(self, time: float, restarted: bool) -> tuple[int, bool]:
        back = len(self.came) > 1 and (time - self.came[-1]) * (self.came[1] - self.came[0]) < 0
        if not self.came or restarted or back:
            return 0, True
        if time == self.came[-1]:
            return self.index, False
        if self.is_last:
            raise OutOfPlace(f"the loop has more than steps={self.count} steps; timestep {time:g} came after them")
        return self.index + 1, False

    def shown(self) -> np.ndarray:
        """All timesteps as far as the trajectory showed them; later ones continue evenly, ``(timesteps,)``."""
        change = self.came[-1] - self.came[-2] if len(self.came) > 1 else -1.0
        rest = self.came[-1] + change * np.arange(1, self.count - len(self.came) + 1)
        return np.concatenate([self.came, rest])
