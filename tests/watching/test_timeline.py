"""Which timestep an evaluation belongs to, and where trajectories begin."""

import numpy as np
import pytest

from gradscope.watching.timeline import OutOfPlace, Timeline


def places(timeline, times):
    found = []
    for time in times:
        index, begins = timeline.place(time)
        timeline.take(time, index, begins)
        found.append((index, begins))
    return found


def test_known_timesteps():
    line = Timeline(np.array([9.0, 6, 3, 0]), 4)
    assert places(line, [9, 6, 3, 0, 9, 6]) == [(0, True), (1, False), (2, False), (3, False), (0, True), (1, False)]
    assert places(Timeline(np.array([9.0, 6, 3, 0]), 4), [6, 3, 6]) == [
        (1, True),
        (2, False),
        (1, True),
    ]  # image to image
    assert places(Timeline(np.array([9.0, 6, 3]), 3), [9, 9, 6, 3, 3]) == [
        (0, True), (0, False), (1, False), (2, False), (2, False)
    ]  # fmt: skip
    assert places(Timeline(np.array([9.0, 6, 6, 3, 3]), 5), [9, 6, 6, 3, 3]) == [
        (0, True), (1, False), (2, False), (3, False), (4, False)
    ]  # fmt: skip
    assert places(Timeline(np.array([9.0, 6, 3, 0]), 4), [9, 3, 0]) == [
        (0, True),
        (2, False),
        (3, False),
    ]  # one left out
    assert places(Timeline(np.array([5.0]), 1), [5, 5]) == [(0, True), (0, True)]
    with pytest.raises(OutOfPlace, match="timestep 5 is not one of the schedule's 4, which begin with 9, 6, 3"):
        places(Timeline(np.array([9.0, 6, 3, 0]), 4), [9, 5])
    with pytest.raises(OutOfPlace, match="goes back from timestep 0 to 6"):
        places(Timeline(np.array([9.0, 6, 3, 0, -3]), 5), [9, 6, 3, 0, 6])


@pytest.mark.parametrize("times", [[10.0, 5.0, 1.0], [0.0, 0.5, 1.0]])
def test_unknown_timesteps_in_either_direction(times):
    line = Timeline(None, 4)
    assert places(line, times) == [(0, True), (1, False), (2, False)]
    assert line.shown()[:3].tolist() == times
    assert len(line.shown()) == 4
    assert len({*line.shown()}) == 4
    assert places(line, times[:2]) == [(0, True), (1, False)]
    full = Timeline(None, 3)
    places(full, times)
    with pytest.raises(OutOfPlace, match="more than steps=3"):
        places(full, [2 * times[-1] - times[-2]])
