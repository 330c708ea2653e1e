"""Whatever two processes do to stores, the stores say what they must. More steps: `make crash`."""

import pytest
from stateful.run import together

STEPS = 1400
"""As many as four minutes of one core allow: 0.16 s each."""


@pytest.mark.slow
def test_random_steps_of_two_processes_leave_stores_that_say_what_they_must():
    taken = together(STEPS, start=0, jobs=2)  # it is one of the last tests, when a core is idle
    assert {"record", "watch", "evaluate", "verify", "copy", "damage", "kill", "go on"} <= taken.keys()
