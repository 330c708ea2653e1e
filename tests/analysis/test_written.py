"""How much of a store is written."""

import pytest

from gradscope.analysis import stability


def test_written_says_how_much_is_written(recorded):
    whole = stability.written(recorded)
    assert whole.complete
    assert str(whole) == "complete: 12 samples in each of 4 cells"
    recorded["written"][1, 0, 0, 0, 4:, 10:] = 0
    recorded["written"][1, 0, 1, 0] = 0
    part = stability.written(recorded.chunk())
    assert not part.complete
    assert part.share == pytest.approx((2 * 12 * 23 + 12 * 23 - 8 * 13) / (4 * 12 * 23))
    assert part.finished.values.ravel().tolist() == [12, 12, 4, 0]
    assert str(part) == "66 % written: 2 of 4 cells complete, 0 to 12 of 12 samples finished per cell"
