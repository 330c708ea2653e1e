"""Every planted fault is named; right gradients are right."""

import pytest
from planted import SHAPES, Problem, derivative

import gradscope

FAULTS = list(Problem().faults())


@pytest.mark.parametrize("name", FAULTS)
def test_a_planted_fault_is_named(name):
    problem = Problem()
    cond_fn, verdict, word = problem.faults()[name]
    found = gradscope.check(cond_fn, problem.energy, problem.x, problem.t, **problem.known)
    assert (found.verdict, word in found.cause, found.right) == (verdict, True, False), str(found)


@pytest.mark.parametrize(("rows", "text"), [([1], "1"), ([0, 3, 5], "0, 3, 5"), (range(12), "all")])
def test_the_wrong_samples_are_named(rows, text):
    problem = Problem(seed=2, n=12)

    def partly(x, t):
        gradient = derivative(problem.energy)(x, t)
        gradient[list(rows)] *= -1
        return gradient

    found = gradscope.check(partly, problem.energy, problem.x, problem.t, **problem.known)
    assert found.evidence["wrong_samples"] == text, str(found)
    assert f"wrong_samples {text}" in str(found)


def test_a_right_gradient_has_no_wrong_samples():
    problem = Problem(seed=2)
    found = gradscope.check(derivative(problem.energy), problem.energy, problem.x, problem.t)
    assert (found.verdict, "wrong_samples" in found.evidence) == ("right", False)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("t", [0, 40, 500, 999])
def test_faults_are_named_at_every_noise_level_and_shape(kind, t):
    problem = Problem(seed=1, kind=kind, n=6, t=min(t, 970))
    faults = problem.faults()
    for name in ("sign", "doubled", "batch mean", "logit", "normalised", "range", "reversed rows"):
        cond_fn, verdict, _ = faults[name]
        found = gradscope.check(cond_fn, problem.energy, problem.x, problem.t, **problem.known)
        assert found.verdict == verdict, f"{name}: {found}"


@pytest.mark.parametrize("seed", range(50))
def test_right_gradients_are_right(seed):
    kind = list(SHAPES)[seed % 3]
    problem = Problem(
        seed=seed, kind=kind, n=[1, 2, 5, 64][seed % 4], t=[0, 1, 30, 250, 600, 900, 970][seed % 7],
        spread=0.05 + 0.03 * (seed % 30), clamp=[None, 1.0][seed % 2], classes=2 + seed % 5,
    )  # fmt: skip
    known = problem.known if seed % 2 else {}
    for energy in (problem.energy, lambda x, t: 1e-12 * problem.energy(x, t)):
        found = gradscope.check(derivative(energy), energy, problem.x, problem.t, seed=seed, **known)
        certain = problem.energy(problem.x, problem.t).median() > -1e-6  # then float32's 1 - p is mostly rounding
        assert found.verdict in ("right", "flat", *(["saturated"] if certain else [])), str(found)
