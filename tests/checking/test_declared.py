"""What is declared is no fault, and what is declared but not done is one."""

import pytest
import torch
from planted import Problem, derivative

import gradscope


def check(problem, cond_fn, **declared):
    return gradscope.check(cond_fn, problem.energy, problem.x, problem.t, **(problem.known | declared))


@pytest.mark.parametrize("seed", range(5))
def test_a_detached_denoiser_by_design_and_by_accident(seed):
    problem = Problem(seed=seed, kind=["points", "image"][seed % 2])
    assert check(problem, problem.detached).verdict == "jacobian_missing"
    assert check(problem, problem.detached, classifier_input="x0_detached").right
    assert check(problem, problem.right, classifier_input="x0_detached").verdict == "jacobian_present"
    assert check(problem, problem.right, classifier_input="x0").right


def test_normalisation():
    problem = Problem(n=5)
    unit, _, _ = problem.faults()["normalised"]
    assert check(problem, unit, normalize="l2").right
    assert check(problem, unit).verdict == "normalized"
    assert check(problem, problem.right, normalize="l2").verdict == "not_normalized"
    turned = check(problem, lambda x, t: -unit(x, t), normalize="l2")
    assert not turned.right


def test_a_declared_scale_is_divided_out():
    problem = Problem()
    assert check(problem, lambda x, t: 7.5 * problem.right(x, t), guidance_scale=7.5).right
    assert check(problem, lambda x, t: 15 * problem.right(x, t), guidance_scale=7.5).verdict == "doubled"


def test_a_clamp_that_is_declared_but_missing():
    problem = Problem(t=500, clamp=0.2, kind="points")
    free = Problem(t=500, kind="points")
    assert check(problem, derivative(free.energy)).verdict == "clamp_missing"
    assert check(problem, problem.right).right


def test_labels_are_read_off_the_energy():
    problem = Problem()
    cond_fn, _, _ = problem.faults()["label + 1"]
    found = check(problem, cond_fn, labels=None)
    assert (found.verdict, found.cause) == ("wrong_target", "label + 1: off by one")


def test_verdicts_that_could_not_be_tested_say_what_they_need():
    problem = Problem()
    found = gradscope.check(problem.at_x0, problem.energy, problem.x, problem.t)
    assert found.verdict == "not_the_gradient"
    assert found.needs["at_x0"] == "needs denoiser=, scheduler="
    assert "not tested" in str(found)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"cond_fn": lambda x, t: x[:1]}, "cond_fn: it must return the gradient as a tensor of shape"),
        ({"cond_fn": lambda x, t: None}, "got NoneType"),
        ({"cond_fn": lambda x, t: 1 / 0}, "cond_fn: it raised ZeroDivisionError"),
        ({"energy": lambda x, t: x}, "energy: it must return one number for each sample"),
        ({"energy": lambda x, t: x.sum()}, "energy: it must return one number for each sample"),
        ({"energy": lambda x, t: torch.randn(len(x))}, "energy: two calls at the same x_t give different values"),
        ({"energy": lambda x, t: torch.nan * x.flatten(1).sum(dim=1)}, "energy: it must be finite"),
        ({"x_t": torch.ones(3, dtype=torch.long)}, "x_t: takes floating-point samples"),
        ({"x_t": torch.full((2, 2), torch.inf)}, "x_t: it has values that are not finite"),
        ({"normalize": "l1"}, "normalize: got 'l1'"),
        ({"classifier_input": "x_0"}, "classifier_input: got 'x_0'; did you mean 'x0'?"),
        ({"classifier_input": "x0_detached", "denoiser": None}, "denoiser: x0_detached holds its output constant"),
        ({"guidance_scale": 0}, "guidance_scale: takes a finite number other than 0"),
        ({"labels": [0, 1]}, "labels: got 2 for 4 samples"),
        ({"guide": len}, "guide: takes a torch.nn.Module"),
        ({"previous": torch.ones(2)}, "previous: takes (x, t)"),
    ],
)
def test_bad_arguments(change, text):
    problem = Problem()
    given = {"cond_fn": problem.right, "energy": problem.energy, "x_t": problem.x, "t": problem.t} | problem.known
    with pytest.raises(gradscope.GradscopeError) as error:
        gradscope.check(**(given | change))
    assert text in str(error.value)


def test_an_energy_that_mixes_samples_is_refused():
    problem = Problem()

    def energy(x, t):
        return problem.energy(x - x.mean(dim=0), t)

    with pytest.raises(gradscope.GradscopeError, match="changes with the other samples"):
        gradscope.check(problem.right, energy, problem.x, problem.t)


def test_forms():
    problem = Problem()
    found = check(problem, lambda x, t: -problem.right(x, t))
    assert str(found).startswith("wrong_sign: c = -g")
    assert "Turn the sign" in str(found)
    assert found.__rich__().plain == str(found)
    assert "<table>" in found._repr_html_()
    assert "&lt;" not in found.title
