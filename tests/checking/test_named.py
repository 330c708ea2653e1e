"""`gradscope.check` names every planted fault, and blames no correct loop."""

import pytest
import torch

from gradscope.checking.checked import Checked
from gradscope.checking.history import FAULTS, LOOPS
from gradscope.checking.history.trial import CORRECT, PLACES, Answer, answers, ask, count
from gradscope.cli.display.history import false_alarms, history_sentence, history_table

CELLS = [(fault.name, loop) for fault in FAULTS.values() for loop in fault.loops]
SEEDS = 20
"""`gradscope check history --seeds 50` asks more, for the documentation."""
CAUSES = {
    "at_x0": "after the clamp",
    "at_mean": "DDPM's mean at timestep 499",
    "noise_first": "the mean at timestep 499 with noise of rms",
    "batch_mean": "1/n with n = 4",
    "image_range": "[0, 1] in place of [-1, 1]",
    "index": "the index of the step, counted from the end",
    "off_by_one": "the next timestep of the loop",
    "label": "label + 1",
    "normalised": "l2 norm 1",
    "order": "normalisation before the stabiliser",
    "signal": "1/sqrt(alphas_cumprod)",
    "clamped_twice": "clamped to [-1, 1] after guidance",
}
"""What the cause must say, at step 5."""
FACTORS = {
    ("sigma", "classifier"): "sigma of the step to timestep 499",
    ("sigma", "planner"): "sigma of the step to timestep 499",
    ("sigma", "posterior"): "noise_t",
    ("sigma", "classifier_free"): "noise_t",
    ("variance", "classifier"): "variance of the step to timestep 499",
    ("variance", "planner"): "variance of the step to timestep 499",
    ("variance", "posterior"): "1 - alphas_cumprod",
    ("variance", "classifier_free"): "1 - alphas_cumprod",
    ("one_more", "classifier_free"): "1.5",
}
VARIED = (
    *({"n": 1}, {"n": 2}, {"n": 8}, {"clamp": False}, {"steps": 40}, {"dtype": torch.float32}),
    *({"prediction": "epsilon"}, {"prediction": "v"}, {"prediction": "sample"}, {"faint": True}, {"stabilized": True}),
    *({"dtype": torch.float32, "stabilized": True, "n": 2}, {"dtype": torch.float32, "clamp": False, "steps": 25}),
)


def planted(fault, name, seed, **further):
    return LOOPS[name](fault, seed=seed, **FAULTS[fault].settings | further)


def varied(name):
    """The settings that a loop can have: a flow predicts its velocity, the mixture epsilon."""
    return [s for s in VARIED if "prediction" not in s or name not in ("chunking", "classifier_free")]


@pytest.mark.parametrize(("fault", "name"), CELLS)
def test_a_planted_fault_is_named(fault, name):
    found = ask(planted(fault, name, seed=0), PLACES[0])
    assert (found.verdict, found.right) == (FAULTS[fault].verdict, False), str(found)
    assert CAUSES.get(fault, "") in found.cause
    assert FACTORS.get((fault, name), "") in found.cause


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("settings", CORRECT, ids=str)
def test_a_correct_loop_is_right(name, settings):
    found = ask(LOOPS[name](seed=0, **settings), PLACES[0])
    assert found.verdict == "right", str(found)


@pytest.mark.parametrize("name", LOOPS)
def test_a_correct_loop_is_right_however_it_is_set(name):
    for settings in varied(name):
        loop = LOOPS[name](seed=1, **settings)
        for place in (0, loop.steps - 1):
            found = ask(loop, place)
            assert found.verdict == "right", f"{settings}, step {place}: {found}"


def test_the_command_counts_what_is_named(monkeypatch):
    """One answer is turned into a wrong one, and so is one about a correct loop."""
    right, wrong = Checked("right"), Checked("doubled")
    given = [
        Answer("classifier", None, 0, right),
        Answer("posterior", None, 0, wrong),
        Answer("classifier", FAULTS["doubled"], 0, wrong),
        Answer("classifier", FAULTS["sign"], 0, wrong),
    ]
    assert false_alarms(given) == 1
    assert history_sentence(given, 1) == "1 of 2 named, 1 false alarms in 2 checks of correct loops (1 seed)"
    table = history_table(given)
    assert [list(column.cells) for column in table.columns[:4]] == [
        ["no fault", "no fault", "doubled", "sign"],
        ["right", "[red]doubled[/red]", "doubled", "[red]doubled[/red]"],
        ["1/1", "", "1/1", "1/1"],
        ["", "1/1", "", ""],
    ]


def test_the_table_fits_80_columns():
    from rich.console import Console

    every = [
        Answer(loop, fault, 0, Checked("right" if fault is None else fault.verdict))
        for fault in (None, *FAULTS.values())
        for loop in LOOPS
    ]
    console = Console(width=80, color_system=None)
    with console.capture() as shown:
        console.print(history_table(every))
    lines = shown.get().splitlines()
    for fault in FAULTS.values():
        assert any(line.split()[:2] == [fault.name, fault.verdict] for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)


def test_the_count_is_that_of_the_answers():
    assert count(3) == 3 * (len(LOOPS) * len(CORRECT) + len(CELLS))
    first = next(iter(answers(1)))
    assert (first.loop, first.fault, first.correct) == ("classifier", None, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("tens", range(SEEDS // 10))
def test_faults_are_named_over_seeds(name, tens):
    wrong = []
    for seed in range(10 * tens, 10 * tens + 10):
        for fault in (fault for fault, loop in CELLS if loop == name):
            found = ask(planted(fault, name, seed), PLACES[seed % len(PLACES)])
            if found.verdict != FAULTS[fault].verdict:
                wrong.append((seed, fault, found.verdict, found.cause))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_correct_loops_are_right_over_seeds(name):
    wrong = []
    for seed in range(SEEDS):
        for settings in ({}, *varied(name)):
            loop = LOOPS[name](seed=seed, **settings)
            for place in (0, 4, loop.steps - 1):
                found = ask(loop, place)
                if found.verdict != "right":
                    wrong.append((seed, settings, place, found.verdict, found.cause))
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize(("fault", "name"), CELLS)
def test_faults_are_named_in_float32_in_larger_batches_and_without_clamps(fault, name):
    for settings in ({"dtype": torch.float32}, {"n": 8}, {"clamp": False}):
        if (fault, name) == ("float16", "classifier_free") and "dtype" in settings:
            continue  # the difference of two predictions is lost in float32 already
        if fault == "clamped_twice" and "clamp" in settings:
            continue  # then it is the only clamp
        found = ask(planted(fault, name, 3, **settings), PLACES[3])
        assert found.verdict == FAULTS[fault].verdict, f"{settings}: {found}"
