"""Recording from a notebook: an error before the first step is measured leaves no store, and names Python's options."""

import ast
from pathlib import Path

import numpy as np
import pytest
from diffusers import DDPMScheduler
from notebook import FLAG, LABELS, PROBES, Peak, cell, own_loop
from small_models import LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.errors import GradscopeError
from probes import EffectiveStrength, Norm, Probe, Variable

ROOT = Path(__file__).parents[2]


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


def test_a_scheduler_is_left_as_it_was(tmp_path, unet, classifier):
    """The check of the first step makes no extra step: an error leaves generators and schedulers unchanged."""
    sampler = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, guidance_scale=0.4))
    with pytest.raises(RuntimeError, match="my own mistake"):
        cell(tmp_path / "a.zarr", sampler, [Peak("first")])
    after = cell(tmp_path / "a.zarr", sampler, PROBES)
    fresh = GuidedSampler(unet, DDPMScheduler(), ClassifierGuidance(classifier, guidance_scale=0.4))
    assert after.numpy().tobytes() == cell(tmp_path / "b.zarr", fresh, PROBES).numpy().tobytes()


def test_the_names_of_a_samples_dimensions_are_the_users(tmp_path, guided):
    names = ("feature", "row", "column")
    with gradscope.record(guided, tmp_path / "a.zarr", PROBES, sample_dims=names) as recorder:
        recorder.sample([0, 1], 3)
    ds = gradscope.open(tmp_path / "a.zarr")
    assert ds["gradient"].dims[-3:] == ds["image"].dims[-3:] == names
    assert ds["stabilizer"].values.tolist() == ["none"]  # as a configuration names it
    with pytest.raises(gradscope.GradscopeError, match="sample_dims: takes a name for each of the 3 dimensions"):
        with gradscope.record(guided, tmp_path / "b.zarr", PROBES, sample_dims=("a",)) as recorder:
            recorder.sample([0, 1], 3)
    assert not (tmp_path / "b.zarr").exists()
