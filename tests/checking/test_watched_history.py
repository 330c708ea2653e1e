"""Whole loops with planted faults, watched by hooks: what their gradients show."""

import pytest

import gradscope
from gradscope.checking.history import FAULTS, LOOPS

SHOWN = [
    *(("at_x0", "posterior"), ("jacobian", "posterior"), ("jacobian", "chunking"), ("label", "planner")),
    *(("at_mean", "classifier"), ("stale", "classifier"), ("stale", "planner"), ("not_squared", "chunking")),
    *(("batch_mean", name) for name in FAULTS["batch_mean"].loops),
    *(("image_range", name) for name in FAULTS["image_range"].loops),
    *(("index", "classifier"), ("off_by_one", "planner"), ("label", "classifier"), ("logit", "classifier")),
]


def check(loop):
    return gradscope.check_loop(
        loop, loop.energy, denoiser=loop.denoiser, guide=loop.guide, scheduler=loop.scheduler, labels=loop.labels
    )


@pytest.mark.parametrize("name", [name for name in LOOPS if name != "classifier_free"])
def test_a_correct_loop_is_right_and_says_that_its_steps_were_not_seen(name):
    """The loops shift the mean by formulas of their own."""
    found = check(LOOPS[name](seed=0))
    assert found.verdict == "right", str(found)
    assert any("only the gradients were checked" in remark for remark in found.remarks)


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name"), SHOWN)
def test_a_fault_of_the_gradient_shows_in_a_whole_loop(fault, name):
    for seed in range(3):
        found = check(LOOPS[name](fault, seed=seed))
        assert found.verdict == FAULTS[fault].verdict, str(found)
