"""Whatever is done to stores, by two processes, they say what they must. More steps: `make crash`."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from stateful.machine import Stores

QUICK = settings(
    max_examples=3, stateful_step_count=20, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip


@pytest.mark.slow
def test_random_steps_of_two_processes_leave_stores_that_say_what_they_must():
    run_state_machine_as_test(Stores, settings=settings(QUICK, max_examples=60, stateful_step_count=50))
