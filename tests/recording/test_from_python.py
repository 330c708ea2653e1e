"""Recording from a notebook: an error before the first step is measured leaves no store, and names Python's options."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler
from small_models import SIZE, LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler, Recorder
from gradscope.errors import GradscopeError
from gradscope.store import Grid
from probes import Belief, Cosine, EffectiveStrength, GuidedStep, Norm, Probe, Tensor, Variable

ROOT = Path(__file__).parents[2]
FLAG = re.compile(r"(?<![\w-])--[a-z]")
PROBES = [Tensor("gradient"), Norm("gradient"), Cosine("gradient"), Belief()]
LABELS = [0, 1, 2, 3, 0]


class Peak(Probe):
    """The probe of README, with a fault."""

    variables = (Variable("gradient_peak", "largest magnitude of the gradient", "max|g_t|"),)

    def __init__(self, fault: str = "") -> None:
        self.fault = fault

    def init(self):
        return 0

    def measure(self, step, state):
        if self.fault == "first" or (self.fault == "second" and step.step == 1):
            raise RuntimeError("my own mistake")
        peak = step.gradient.abs().flatten(1).amax(dim=1)
        if self.fault == "shape":
            peak = peak[:, None]
        if self.fault == "kind":
            peak = peak.tolist()
        return {"gradient_peek" if self.fault == "name" else "gradient_peak": peak}, state + 1


class Needy(Peak):
    needs = ("gradient", "gradiant")


class NoVariables(Peak):
    variables = ("gradient_peak",)


class Bare(Probe):
    variables = Peak.variables


class Reserved(Peak):
    variables = (Variable("written", "largest", "max"),)


class Unmeasured(Peak):
    variables = (Variable("gradient_peak", "largest", "max", dims=("layer",)),)


class Strange(Peak):
    variables = (Variable("gradient_peak", "largest", "max", dtype="complex64"),)


@pytest.fixture
def guided(unet, scheduler, classifier) -> GuidedSampler:
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))


def cell(path, sampler, probes, labels=LABELS, **options):
    """The notebook's code."""
    with gradscope.record(sampler, path, probes, classifier_name="mine", **options) as recorder:
        return recorder.sample(labels, num_inference_steps=4, seed=0, batch_size=2)


@pytest.mark.parametrize(
    ("probes", "said"),
    [
        ([Peak("first")], "my own mistake"),
        ([Peak("shape")], r"Peak: gradient_peak must be a tensor over \(sample\) of shape \(2,\), got \(2, 1\)"),
        ([Peak("kind")], "gradient_peak must be a tensor over .*, got list"),
        ([Peak("name")], r"Peak measured \['gradient_peek'\], but declares \['gradient_peak'\]"),
        ([Norm("gradient"), Peak], r"probes\[1\]: takes a probe, got the class Peak; pass Peak\(...\)"),
        (Peak(), "probes: takes a list of probes"),
        ([Probe()], r"probes\[0\]: Probe is the base class and measures nothing"),
        ([Bare()], "Bare does not implement `measure`, so it measures nothing"),
        ([NoVariables()], "NoVariables.variables must be a tuple of probes.Variable"),
        ([Needy()], "GuidedStep has no field 'gradiant'; did you mean 'gradient'"),
        ([Reserved()], "is taken by every store, got 'written'"),
        ([Unmeasured()], "gradient_peak has a dimension 'layer' of unknown length; give `sizes`"),
        ([Strange()], "gradient_peak has dtype 'complex64'; one of: float32"),
        ([lambda step: step], r"probes\[0\]: takes a probes.Probe, got an object of type function"),
        ([Norm("gradient"), Norm("gradient")], "two of them record 'gradient_norm'"),
    ],
)
def test_a_cell_with_a_wrong_probe_leaves_no_store_and_runs_when_it_is_corrected(tmp_path, guided, probes, said):
    with pytest.raises((GradscopeError, RuntimeError), match=said):
        cell(tmp_path / "a.zarr", guided, probes)
    assert list(tmp_path.iterdir()) == []
    cell(tmp_path / "a.zarr", guided, [Peak()])
    assert np.isfinite(gradscope.open(tmp_path / "a.zarr")["gradient_peak"]).all()


@pytest.mark.parametrize("labels", [[0, 1, 2, 4], [0, -1]])
def test_wrong_labels_leave_no_store(tmp_path, guided, labels):
    with pytest.raises(GradscopeError, match="labels: the classifier has classes 0 to 3"):
        cell(tmp_path / "a.zarr", guided, PROBES, labels=[*labels, 0, 0])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("module", [LinearClassifier(channels=1), nn.Conv2d(1, 4, 3), nn.Identity()])
def test_a_wrong_classifier_leaves_no_store(tmp_path, guided, unet, scheduler, module):
    wrong = GuidedSampler(unet, scheduler, ClassifierGuidance(module, guidance_scale=0.4))
    with pytest.raises((RuntimeError, GradscopeError, IndexError)):
        cell(tmp_path / "a.zarr", wrong, PROBES)
    assert list(tmp_path.iterdir()) == []
    cell(tmp_path / "a.zarr", guided, PROBES)
    assert gradscope.open(tmp_path / "a.zarr").attrs["status"] == "complete"


def test_an_overwritten_store_is_kept_until_the_first_step_is_measured(tmp_path, guided):
    cell(tmp_path / "a.zarr", guided, [Peak()])
    first = gradscope.open(tmp_path / "a.zarr").attrs["run_id"]
    with pytest.raises(RuntimeError, match="my own mistake"):
        cell(tmp_path / "a.zarr", guided, [Peak("first")], overwrite=True)
    assert gradscope.open(tmp_path / "a.zarr").attrs["run_id"] == first


def test_a_later_error_says_how_to_resume(tmp_path, guided):
    with pytest.raises(RuntimeError, match="my own mistake") as failed:
        cell(tmp_path / "a.zarr", guided, [Peak("second")])
    assert failed.value.__notes__ == [f"0 of 3 blocks are recorded in {tmp_path / 'a.zarr'}; continue with resume=True"]
    cell(tmp_path / "a.zarr", guided, [Peak()], resume=True)
    assert gradscope.open(tmp_path / "a.zarr").attrs["status"] == "complete"


def own_loop(path: Path, probes: list[Probe], shape=(2, 1, 4, 4), **fields) -> None:
    grid = Grid(
        ("mine",), ("x_t",), ("none",), (1.0,), np.array([0, 1]), np.array([5, 6]), timestep=np.array([2, 1, 0]),
        alphas_cumprod=np.ones(3), sigma=np.ones(3), sample_shape=(1, 4, 4), batch_size=2,
    )  # fmt: skip
    with Recorder(path, grid, probes, device=torch.device("cpu")) as recorder:
        assert recorder.finished.shape == (1, 1, 1, 1, 1)
        assert not recorder.finished.any()
        hook = recorder.trajectory((0, 0, 0, 0), 0)
        for i in range(3):
            g = torch.randn(*shape)
            hook(GuidedStep(step=i, timestep=2 - i, x_t=g, gradient=g, prev_sample=g, **fields))


def test_a_users_own_loop_that_lacks_a_field_leaves_no_store(tmp_path):
    path = tmp_path / "a.zarr"
    with pytest.raises(ValueError, match=r"EffectiveStrength needs GuidedStep.shift"):
        own_loop(path, [EffectiveStrength()])
    with pytest.raises(GradscopeError, match=r"x_t of shape \(2, 1, 4, 4\) by the grid, got \(2, 3, 4, 4\)"):
        own_loop(path, [Norm("gradient")], shape=(2, 3, 4, 4))
    with pytest.raises(GradscopeError, match=r"x_t of shape \(2, 1, 4, 4\) by the grid, got \(1, 1, 4, 4\)"):
        own_loop(path, [Norm("gradient")], shape=(1, 1, 4, 4))
    assert list(tmp_path.iterdir()) == []
    own_loop(path, [Norm("gradient")])
    assert (gradscope.open(path)["written"] > 0).all()


def test_a_second_call_of_sample_says_what_to_do_and_loses_nothing(tmp_path, guided):
    with gradscope.record(guided, tmp_path / "a.zarr", PROBES, overwrite=True) as recorder:
        images = recorder.sample(LABELS, 4)
        with pytest.raises(GradscopeError, match=r"give all labels to one call .* record this one into another store"):
            recorder.sample(LABELS, 4, seed=1)
    np.testing.assert_array_equal(gradscope.open(tmp_path / "a.zarr")["image"].values.squeeze(), images.numpy())


def test_a_call_of_sample_that_failed_without_a_store_can_be_repeated(tmp_path, guided):
    with gradscope.record(guided, tmp_path / "a.zarr", PROBES) as recorder:
        with pytest.raises(GradscopeError, match="labels"):
            recorder.sample([9], 4)
        recorder.sample(LABELS, 4)
    assert gradscope.open(tmp_path / "a.zarr").attrs["status"] == "complete"


def test_errors_from_python_name_pythons_options(tmp_path, guided):
    path = tmp_path / "a.zarr"
    cell(path, guided, PROBES)
    with pytest.raises(GradscopeError) as exists:
        cell(path, guided, PROBES)
    assert str(exists.value) == (
        f"{path} exists; choose another path, continue it (resume=True), or overwrite it (overwrite=True)"
    )
    assert exists.value.for_command() == (
        f"recording.path: {path} exists; choose another path (--store), continue it (--resume {path}), or overwrite "
        "it (--overwrite)"
    )
    other = GuidedSampler(guided.unet, guided.scheduler, ClassifierGuidance(guided.guidance.classifier, "x0"))
    with pytest.raises(GradscopeError) as differs:
        cell(path, other, PROBES, resume=True)
    (tmp_path / "thesis").mkdir()
    with pytest.raises(GradscopeError) as precious:
        cell(tmp_path / "thesis", guided, PROBES, overwrite=True)
    for error in (exists, differs, precious):
        assert not FLAG.search(str(error.value))


def test_only_the_rooms_of_the_command_line_name_its_options():
    """Elsewhere an error gives them as `key` and `command`, which Python does not show."""
    rooms = ("cli", "config/loading.py", "recording/cluster.py", "auditing/run.py", "reporting/html.py")
    wrong = []
    for path in (ROOT / "gradscope").rglob("*.py"):
        place = path.relative_to(ROOT / "gradscope").as_posix()
        if place.startswith(rooms):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and "Error" in ast.unparse(node.func):
                wrong += [(place, text) for text in map(ast.unparse, node.args) if FLAG.search(text)]
    assert wrong == []


def test_a_report_is_shown_in_a_notebook(tmp_path, guided):
    cell(tmp_path / "<b>.zarr", guided, PROBES)
    ds = gradscope.open(tmp_path / "<b>.zarr").assign_coords(classifier=["<script>x</script>"])
    report = gradscope.report(ds)
    shown = report._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;x&lt;/script&gt;" in shown
    assert f"{report.cells['gradient_cosine'][0]:.3f}" in shown
    for name, reason in report.untested.items():
        assert name in shown
        assert reason.split("`")[0][:40] in shown


class TestEvaluate:
    """Verdicts by modules, re-derived from the images."""

    @pytest.fixture
    def stored(self, tmp_path, guided):
        cell(tmp_path / "a.zarr", guided, PROBES)
        return tmp_path / "a.zarr"

    @pytest.fixture
    def judge(self):
        torch.manual_seed(7)
        return LinearClassifier()

    @staticmethod
    def right(path, module) -> float:
        images = torch.from_numpy(gradscope.open(path)["image"].values.reshape(-1, 3, SIZE, SIZE))
        with torch.no_grad():
            return float((module(images).argmax(dim=1) == torch.tensor(LABELS)).double().mean())

    def test_a_guide_and_a_judge_give_their_accuracies(self, stored, guided, judge):
        guide, lines = guided.guidance.classifier, []
        judge.train()
        ds = gradscope.evaluate(stored, guide, judge=judge, tell=lines.append)
        assert float(ds["own_accuracy"].squeeze()) == self.right(stored, guide)
        assert float(ds["judge_accuracy"].squeeze()) == self.right(stored, judge)
        assert lines == ["no distances, no coverage: extractor=... and data=... gives them"]
        assert ds["class"].values.tolist() == ["0", "1", "2", "3"]
        assert json.loads(ds.attrs["evaluation"])["judge"] == "python:LinearClassifier"
        assert judge.training  # as it was

    def test_a_guide_alone_gives_its_own_accuracy(self, stored, guided):
        ds = gradscope.evaluate(stored, {"mine": guided.guidance.classifier}, tell=lambda text: None)
        assert float(ds["own_accuracy"].squeeze()) == self.right(stored, guided.guidance.classifier)
        assert "judge_accuracy" not in ds
        assert ds["class"].values.tolist() == ["0", "1", "2", "3"]
        gradscope.report(ds)

    def test_an_extractor_and_data_give_distances(self, stored, judge):
        data = {"name": "sportballs", "size": SIZE}
        ds = gradscope.evaluate(stored, extractor=judge, data=data, tell=lambda text: None)
        assert np.isfinite(ds["kd_LinearClassifier"]).all()
        assert "own_accuracy" not in ds

    def test_a_store_of_a_recorder_is_evaluated(self, tmp_path):
        own_loop(tmp_path / "own.zarr", [Norm("gradient")])
        judge = LinearClassifier(channels=1, size=4)
        ds = gradscope.evaluate(tmp_path / "own.zarr", judge=judge, tell=lambda text: None)
        with torch.no_grad():
            wanted = judge(torch.from_numpy(ds["image"].values.reshape(2, 1, 4, 4))).argmax(dim=1)
        np.testing.assert_array_equal(ds["judge_prediction"].values.squeeze(), wanted)

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "nothing to evaluate with; judge=..., extractor=... and data=... name what there is"),
            ({"guide": {"yours": LinearClassifier()}}, "guide: the store has no guide 'yours'; one of: mine"),
            ({"guide": LinearClassifier()}, "guide: the weights of 'mine' are not those with which the store was"),
            ({"judge": LinearClassifier(size=4)}, "judge: the classifier does not take images of 3 x 8 x 8"),
            ({"judge": "zoo:sportballs32/jury"}, "judge: no 'zoo:sportballs32/jury' in the zoo"),
            ({"judge": "zoo:sportballs32/judge"}, "judge was trained on images of 3 x 32 x 32"),
            ({"data": {"name": "balls", "sise": 8}}, "evaluation.data.sise: unknown key; did you mean 'size'"),
        ],
    )
    def test_wrong_arguments_are_errors_that_name_pythons_options(self, stored, given, said):
        before = {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()}
        with pytest.raises(GradscopeError, match=said) as refused:
            gradscope.evaluate(stored, **given)
        assert not FLAG.search(str(refused.value))
        assert {file: file.read_bytes() for file in stored.rglob("*") if file.is_file()} == before


def test_a_scheduler_is_left_as_it_was(tmp_path, unet, classifier):
    """The check of the first step makes no extra step: an error leaves generators and schedulers unchanged."""
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, guidance_scale=0.4))
    with pytest.raises(RuntimeError, match="my own mistake"):
        cell(tmp_path / "a.zarr", sampler, [Peak("first")])
    after = cell(tmp_path / "a.zarr", sampler, PROBES)
    fresh = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, guidance_scale=0.4))
    assert after.numpy().tobytes() == cell(tmp_path / "b.zarr", fresh, PROBES).numpy().tobytes()
