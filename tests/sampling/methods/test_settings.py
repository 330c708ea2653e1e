"""Settings of methods are checked strictly, by name and by class, and before anything runs."""

import math
import re
from dataclasses import dataclass, fields, make_dataclass
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler
from linear_models import Logits, close, sampler_of, steps_of

import gradscope.sampling.guidance.methods as package
from gradscope import ClassifierGuidance, SmoothGrad, methods
from gradscope.errors import GradscopeError
from gradscope.sampling.guidance.methods import METHODS, ClassifierGradient, Method, build, pull
from gradscope.settings import typed

WRONG = [
    ("lgd", "draws", 0, "must be at least 1, got 0"),
    ("lgd", "draws", "8", "must be a valid integer, got '8'"),
    ("lgd", "draws", 2.5, "must be a valid integer, got 2.5"),
    ("lgd", "draws", True, "must be a valid integer, got True"),
    ("lgd", "std", -0.1, "must be at least 0, got -0.1"),
    ("lgd", "std", math.inf, "must be finite, got inf"),
    ("lgd", "std", None, "must be a valid number, got None"),
    ("dps", "norm", "no", "must be a valid boolean, got 'no'"),
    ("pigdm", "iterations", 0, "must be at least 1, got 0"),
    ("pigdm", "iterations", [3], "must be a valid integer, got (3,)"),
    ("freedom", "recurrence", 0, "must be at least 1, got 0"),
    ("freedom", "recurrence", 1.5, "must be a valid integer, got 1.5"),
    ("freedom", "between", (5, 5), "must be two timesteps, first < end, got [5, 5]"),
    ("freedom", "between", (5, math.nan), "must be two timesteps, first < end, got [5, nan]"),
    ("freedom", "between", 5, "must be a valid tuple, got 5"),
    ("universal", "steps", -1, "must be at least 0, got -1"),
    ("universal", "forward", math.nan, "must be finite, got nan"),
    ("universal", "rate", math.inf, "must be finite, got inf"),
    ("universal", "recurrence", 0, "must be at least 1, got 0"),
    ("tfg", "rho", math.nan, "must be finite, got nan"),
    ("tfg", "mu", math.inf, "must be finite, got inf"),
    ("tfg", "steps", -1, "must be at least 0, got -1"),
    ("tfg", "std", -1.0, "must be at least 0, got -1.0"),
    ("tfg", "draws", 0, "must be at least 1, got 0"),
    ("tfg", "between", (900, 100), "must be two timesteps, first < end, got [900, 100]"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), WRONG)
def test_a_wrong_value_is_named_by_its_key_and_in_python(name, key, value, message):
    given = list(value) if isinstance(value, tuple) else value
    with pytest.raises(GradscopeError, match=f"^{re.escape(f'guidance.method.{name}.{key}: {message}')}$"):
        build(name, {key: given})
    in_python = tuple(value) if isinstance(value, list) else value
    with pytest.raises(ValueError, match=f"^{re.escape(f'{key} {message}')}$"):
        METHODS[name](**{key: in_python})


@pytest.mark.parametrize(
    ("between", "message"),
    [
        ([5], r"between: must have more values, got \(5,\)"),
        ([1, 2, 3], r"between: must have fewer values, got \(1, 2, 3\)"),
        ([1, "b"], "between.1: must be a valid number, got 'b'"),
    ],
)
def test_an_interval_has_two_ends(between, message):
    with pytest.raises(GradscopeError, match=f"guidance.method.freedom.{message}"):
        build("freedom", {"between": between})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lgdd", {}, "guidance.method: unknown method 'lgdd'; did you mean 'lgd'? one of: classifier, dps, lgd, "),
        ("lgd", {"draw": 3}, "guidance.method.lgd.draw: lgd has no such setting; did you mean 'draws'? one of: "),
        ("mpgd", {"inputs": ["x_t"]}, "guidance.method.mpgd.inputs: mpgd has no such setting; it has none"),
        ("dps", {"enters": "x0"}, "guidance.method.dps.enters: dps has no such setting; one of: norm"),
        ("classifier", {"scale": 2}, "guidance.method.classifier.scale: classifier has no such setting; it has none"),
    ],
)
def test_unknown_names_are_told_with_what_is_possible(name, options, message):
    with pytest.raises(GradscopeError, match=f"^{re.escape(message)}"):
        build(name, options)


def test_right_values_are_taken_as_they_are():
    assert build("tfg", {"rho": 2, "between": [100, 900], "recurrence": 3}) == methods.TFG(
        rho=2.0, between=(100, 900), recurrence=3
    )
    for name, kind in METHODS.items():
        assert build(name, {}) == kind()
        assert build(name, {field.name: field.default for field in fields(kind)}) == kind()


@pytest.mark.parametrize("method", ["dps", methods.DPS, None])
def test_a_name_or_a_class_in_the_place_of_a_method(method):
    message = "guidance.method: takes a method, for example gradscope.methods.DPS(), got "
    with pytest.raises(GradscopeError, match=f"^{re.escape(message)}"):
        ClassifierGuidance(Logits(), method=method)


@pytest.mark.parametrize("name", METHODS)
def test_an_input_that_a_method_does_not_have(name):
    method = METHODS[name]()
    for kind in set(Method.inputs) - set(method.inputs):
        message = f"guidance.classifier_input: {type(method).__name__} is not defined at '{kind}'; "
        with pytest.raises(GradscopeError, match=f"^{message}.*one of: {', '.join(method.inputs)}$"):
            ClassifierGuidance(Logits(), kind, method=method)


def test_smoothgrad_belongs_to_the_classifiers_gradient():
    message = "guidance.smoothgrad: belongs to the method classifier, the method is LGD"
    with pytest.raises(GradscopeError, match=message):
        ClassifierGuidance(Logits(), "x0", smoothgrad=SmoothGrad(2, 0.1), method=methods.LGD())


def test_each_method_is_one_file_of_at_most_60_lines():
    folder = Path(package.__file__).parent
    for name, kind in METHODS.items():
        assert len((folder / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= 60
        assert kind.__module__.endswith(f".{name}")
        assert kind.__name__ in package.__all__


@dataclass(frozen=True)
class Twice(Method):
    factor: float = 2.0

    def pull(self, view):
        answer = view.ask()
        return pull(self.factor * view.gradient(answer.scores, view.x_t), answer)


def test_a_method_of_ones_own_guides_like_ours():
    own = steps_of(Twice(), DDPMScheduler(clip_sample=False), Logits(), scale=0.2)
    ours = steps_of(ClassifierGradient(), DDPMScheduler(clip_sample=False), Logits(), scale=0.4)
    for one, other in zip(own, ours, strict=True):
        close(one.prev_sample, other.prev_sample)
    with pytest.raises(ValueError, match="^factor must be a valid number, got 'x'$"):
        Twice(factor="x")


@dataclass(frozen=True)
class Held(Twice):
    anchor: torch.Tensor | None = None
    later: "NotThereAtRunTime" = 3  # noqa: F821


def test_types_that_cannot_be_checked_are_taken_as_they_are():
    assert Held(anchor=torch.ones(2)).later == 3
    fields_of = make_dataclass("Fields", [("anchor", torch.Tensor), ("factor", float)])
    given = {"anchor": torch.ones(2), "factor": 2}
    assert typed(fields_of, given)["anchor"] is given["anchor"]
    with pytest.raises(ValueError, match="^factor must be a valid number, got 'x'$"):
        typed(fields_of, given | {"factor": "x"})


class Wrong(Method):
    def __init__(self, what):
        object.__setattr__(self, "what", what)

    def pull(self, view):
        return self.what(view, view.ask())


@pytest.mark.parametrize(
    ("what", "got"),
    [
        (lambda view, answer: pull(view.x_t[:1].double(), answer), r"a vector \(1, 6\)"),
        (lambda view, answer: pull(view.x_t.sum().double(), answer), r"a vector \(\)"),
        (lambda view, answer: view.x_t, "Tensor"),
        (lambda view, answer: None, "NoneType"),
    ],
)
def test_what_is_no_vector_for_each_sample_is_refused_at_the_first_step(what, got):
    message = rf"^guidance.method: Wrong.pull must give a Pull with a vector \(3, 6\), got {got}$"
    with pytest.raises(GradscopeError, match=message):
        steps_of(Wrong(what), DDIMScheduler(), Logits())


@pytest.mark.parametrize("count", [0, -1, 1.5, None])
def test_a_number_of_repetitions_that_is_none(count):
    class Never(Twice):
        def repeats(self, times):
            return count

    with pytest.raises(GradscopeError, match="guidance.method: Never.repeats: must be a whole .* at least 1, got"):
        sampler_of(Never(), DDIMScheduler(), Logits()).schedule(3)


def test_a_vector_that_is_not_finite_leaves_the_sample_unguided():
    def spoilt(view, answer):
        vector = view.gradient(answer.scores, view.x_t)
        vector[1] = torch.nan
        return pull(vector, answer)

    for step in steps_of(Wrong(spoilt), DDIMScheduler(clip_sample=False), Logits()):
        assert step.unguided.tolist() == [False, True, False]
        assert bool((step.shift[1] == 0).all())
        assert bool(step.prev_sample.isfinite().all())
