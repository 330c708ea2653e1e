"""Guidance methods in a configuration: loaded and checked before a model is, and kept in the store."""

import json
import sys

import pytest
from own_guides import content  # noqa: F401
from own_models import changed, run_of

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler, methods
from gradscope.errors import GradscopeError
from gradscope.recording.load_methods import load_method
from gradscope.recording.run import record_run
from gradscope.sampling.denoiser import Condition

OWN = '''
from gradscope.methods import DPS, LGD, Method, pull


@dataclass(frozen=True)
class Strong(Method):
    """The gradient times a factor."""

    factor: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        self.require("factor", least=0)

    def pull(self, view):
        answer = view.ask()
        return pull(self.factor * view.gradient(answer.scores, view.x_t), answer)


class Broken(Method):
    def pull(self, view):
        return pull(view.x_t.double(), view.answer)


def measured(x_0):
    return x_0[..., :4]


def observed():
    return torch.zeros(1, 3, 8, 4)
'''


@pytest.fixture
def written(content, tmp_path):  # noqa: F811
    with (tmp_path / "mymodels.py").open("a") as file:
        file.write(OWN)
    sys.modules.pop("mymodels", None)
    content["guidance"]["classifier_input"] = ["x0"]
    content["stabilizers"] = {"none": {}}
    return content


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("lgdd", "^guidance.method: unknown method 'lgdd'; did you mean 'lgd'"),
        ({"lgd": {"draws": 0}}, "^guidance.method.lgd.draws: must be at least 1, got 0$"),
        ({"lgd": {"draws": "8"}}, "^guidance.method.lgd.draws: must be a valid integer, got '8'$"),
        ({"lgd": {"draw": 8}}, "^guidance.method.lgd.draw: lgd has no such setting; did you mean 'draws'"),
        ({"lgd": {}, "dps": {}}, "guidance.method: .*one name with its options"),
        ({}, "guidance.method: .*one name with its options"),
        (3, "guidance.method: must be a name, or a name with its settings, for example {lgd: {draws: 8}}, got 3"),
        ("mpgd", "^guidance.classifier_input: MPGD is not defined at 'x0'; .*one of: x0_detached$"),
        ("mymodels:Strng", "^guidance.method: mymodels has no 'Strng'; did you mean 'Strong'"),
        ("nomodels:Strong", "^guidance.method: cannot import 'nomodels' of 'nomodels:Strong'"),
        ("mymodels:Peak", "^guidance.method: mymodels:Peak must give a gradscope.methods.Method, it gave Peak$"),
        ({"mymodels:Strong": {"factr": 2}}, "^guidance.method: mymodels:Strong raised TypeError: .*'factr'"),
        (
            {"mymodels:Strong": {"factor": -1.0}},
            "^guidance.method: mymodels:Strong raised ValueError: factor must be at least 0, got -1.0 ",
        ),
    ],
)
def test_a_wrong_method_is_refused_before_a_model_is_loaded(written, tmp_path, method, message):
    written["guidance"]["method"] = method
    written["denoiser"] = "mymodels:no_such_thing"
    with pytest.raises(GradscopeError, match=message):
        run_of(written)
    assert not (tmp_path / "run.zarr").exists()


def test_smoothgrad_with_another_method_is_refused_before_a_model_is_loaded(written):
    written["guidance"] |= {"method": "lgd", "smoothgrad": {"samples": 2, "std": 0.1}}
    written["denoiser"] = "mymodels:no_such_thing"
    with pytest.raises(GradscopeError, match="^guidance.smoothgrad: belongs to the method classifier, .* is LGD$"):
        run_of(written)


@pytest.mark.parametrize(
    ("guidance", "scheduler", "message"),
    [
        ({"method": "pigdm"}, "ddim", "guidance.method: pigdm needs a linear measurement as its guide, got Linear"),
        ({"method": "dps"}, "unipc_multistep", "guidance.method: DPS adds to prev_sample, but UniPC.* would be lost"),
        ({"method": {"universal": {"recurrence": 2}}}, "heun", "guidance.method: recurrence draws x_t .* but HeunDisc"),
        (
            {"method": "mpgd", "classifier_input": ["x0_detached"]},
            "dpm_solver_multistep",
            "guidance.method: mpgd moves x0-hat and keeps epsilon, but DPMSolverMultistepScheduler makes",
        ),
        (
            {"method": {"freedom": {"recurrence": 2, "between": [900, 950]}}},
            "ddim",
            r"guidance.method: between: no timestep lies in \[900, 950\); the 4 steps go from 750 to 0",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_before_anything_runs(written, tmp_path, guidance, scheduler, message):
    written["guidance"] |= guidance
    written["sampling"]["scheduler"] = scheduler
    with pytest.raises(GradscopeError, match=message):
        run_of(written)
    assert not (tmp_path / "run.zarr").exists()


@pytest.mark.slow
def test_a_method_of_ones_own_by_its_name(written):
    assert load_method("mymodels:Strong").factor == 2.0
    run = run_of(changed(written, "guidance.method", {"mymodels:Strong": {"factor": 3}}))
    assert run.method.factor == 3
    record_run(run)
    attributes = gradscope.open(run.config.recording.path).attrs
    assert json.loads(attributes["configuration"])["guidance"]["method"] == {"mymodels:Strong": {"factor": 3}}


def test_an_error_of_ones_own_method_names_its_line(written, tmp_path):
    message = r"^guidance.method: Broken.pull raised AttributeError: 'View' .* 'answer' \(.*mymodels.py, line \d+\)$"
    with pytest.raises(GradscopeError, match=message):
        record_run(run_of(changed(written, "guidance.method", "mymodels:Broken")))
    assert not (tmp_path / "run.zarr").exists()


def test_a_measurement_guides_by_pigdm(written):
    written["classifiers"] = {
        "half": {"measurement": "mymodels:measured", "target": "mymodels:observed", "noise_std": 0.1}
    }
    written["guidance"] |= {"method": "pigdm", "guidance_scale": [1.0], "normalize": "none"}
    run = run_of({**written, "judge": "none", "probes": ["gradient", "energy"]})
    record_run(run)
    ds = gradscope.open(run.config.recording.path)
    energy = ds.energy.squeeze().transpose("timestep", "sample").values
    assert (energy[-1] > energy[0]).all()


@pytest.mark.slow
def test_a_recording_from_python_holds_all_settings_of_the_sampler(unet, scheduler, classifier, tmp_path):
    from diffusers import DDIMScheduler

    guidance = ClassifierGuidance(classifier, "x0", method=methods.TFG(rho=0.5, std=0.1))
    sampler = GuidedSampler(
        unet, DDIMScheduler(), guidance, eta=0.5, use_clipped_model_output=True, condition=Condition("none")
    )
    hashes = {}
    for name, changes in {
        "one": {},
        "method": {"guidance": ClassifierGuidance(classifier, "x0", method=methods.TFG(rho=0.5))},
        "eta": {"eta": 0.25},
        "clipped": {"use_clipped_model_output": False},
    }.items():
        given = {"guidance": guidance, "eta": 0.5, "use_clipped_model_output": True} | changes
        sampler = GuidedSampler(unet, DDIMScheduler(), **given)
        with gradscope.record(sampler, tmp_path / f"{name}.zarr", ["norms"]) as recorder:
            recorder.sample([0], 2)
        hashes[name] = gradscope.open(tmp_path / f"{name}.zarr").attrs["configuration_hash"]
    held = json.loads(gradscope.open(tmp_path / "one.zarr").attrs["configuration"])
    assert held["method"] == repr(guidance.method)
    assert (held["eta"], held["use_clipped_model_output"]) == (0.5, True)
    assert held["condition"] == {"given": "none", "null_label": None, "scale": 1.0}
    assert len(set(hashes.values())) == len(hashes)
    other = GuidedSampler(unet, DDIMScheduler(), guidance, eta=0.25, use_clipped_model_output=True)
    with (
        pytest.raises(GradscopeError, match=r"cannot resume: eta was 0.5, and is 0.25"),
        gradscope.record(other, tmp_path / "one.zarr", ["norms"], resume=True) as recorder,
    ):
        recorder.sample([0], 2)
