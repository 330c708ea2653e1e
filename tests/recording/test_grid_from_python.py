"""A grid of cells by one call from Python: the same store as by a configuration, array by array."""

import json
import subprocess
import sys
from itertools import product

import numpy as np
import own_models
import pytest
import small_run
import torch
import xarray as xr
from diffusers import DDIMScheduler
from own_models import changed, run_of
from small_models import SIZE, LinearClassifier
from torch import nn

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.cli import record_workflow
from gradscope.errors import GradscopeError
from gradscope.recording.run import record_run
from gradscope.stabilizers import Adam, Identity
from gradscope.store import open_store
from probes import Norm, Tensor

content = own_models.content
LABELS = [0, 1, 2, 3, 0, 1]
SHAPE = (3, SIZE, SIZE)
CELLS = {"classifier_input": ["x_t", "x0"], "guidance_scale": [0, 0.4]}


def by_configuration(path, **changes) -> xr.Dataset:
    """Record as the command does."""
    config = small_run.config(path, **changes)
    file = path.with_suffix(".yaml")
    file.write_text(json.dumps(config.model_dump(mode="json")))
    request = record_workflow.Request(str(file), None, None, [], "cpu", False, False, None, None)
    record_workflow.run(request)
    return open_store(path)


def sampler_of_the_configuration(**guidance) -> GuidedSampler:
    denoiser = gradscope.load_denoiser("small_run:denoiser")
    robust = gradscope.load_classifier("small_run:robust", SHAPE).module
    return GuidedSampler(denoiser.unet, denoiser.scheduler, ClassifierGuidance(robust, **guidance))


def assert_same_arrays(ours: xr.Dataset, theirs: xr.Dataset) -> None:
    assert set(ours.variables) == set(theirs.variables)
    for name in ours.variables:
        a, b = ours[name].values, theirs[name].values
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes() if a.dtype != object else a.tolist() == b.tolist(), name


@pytest.fixture
def guided(unet, scheduler, classifier) -> GuidedSampler:
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))


@pytest.mark.slow
def test_a_grid_has_the_arrays_of_the_same_run_by_configuration_bit_for_bit(tmp_path):
    other = small_run.another_judge()
    sampler = sampler_of_the_configuration()
    recorder = gradscope.record(
        sampler,
        tmp_path / "python.zarr",
        ["gradient", "update", "norms", "cosines", "strength", Tensor("x_t"), {"snr": {"draws": 2}}],
        cells={
            "classifier": {"robust": sampler.guidance.classifier, "other": other},
            "classifier_input": ["x_t", "x0"],
            "stabilizer": {"none": Identity(), "adam": Adam()},
            "guidance_scale": [0, 0.4],
        },
        judge=small_run.robust(),
        tensor_samples=5,
    )
    ours = recorder.sample(LABELS, num_inference_steps=6, seed=3, batch_size=4)
    theirs = by_configuration(
        tmp_path / "yaml.zarr",
        classifiers={"robust": "small_run:robust", "other": "small_run:another_judge"},
        guidance={"guidance_scale": [0.0, 0.4]},
        sampling={"num_inference_steps": 6, "batch_size": 4, "seed": 3},
        probes=["gradient", "update", "norms", "cosines", "strength", "x_t", {"snr": {"draws": 2}}],
    )
    assert ours["gradient"].sizes["classifier"] * ours["gradient"].sizes["guidance_scale"] == 4
    assert np.isfinite(ours["gradient_norm"]).all()
    assert_same_arrays(ours, theirs)
    small_run.assert_same_recording(tmp_path / "python.zarr", tmp_path / "yaml.zarr")
    assert ours.attrs["weights_sha256"] == theirs.attrs["weights_sha256"]


@pytest.mark.slow
def test_what_a_sampler_has_is_what_a_configuration_sets(tmp_path):
    """Settings of the guidance, another scheduler, float16, a codec chosen by the gradients."""
    settings = {"objective": "logit", "normalize": "none", "interval": (200, 900)}
    base = sampler_of_the_configuration(**settings, smoothgrad=gradscope.SmoothGrad(2, 0.1))
    sampler = GuidedSampler(base.unet, DDIMScheduler.from_config(base.scheduler.config), base.guidance)
    ours = gradscope.record(
        sampler,
        tmp_path / "python.zarr",
        ["gradient"],
        cells={
            "classifier": {"robust": "small_run:robust"},
            "stabilizer": {"e": {"method": "ema", "beta": 0.5}},
            "guidance_scale": 2,
        },
        judge="small_run:another_judge",
        dtype="float16",
        codec="auto",
        tensor_every=2,
        sample_dims=["feature", "row", "column"],
    ).sample(LABELS, num_inference_steps=5, batch_size=2)  # fmt: skip
    theirs = by_configuration(
        tmp_path / "yaml.zarr",
        judge="small_run:another_judge",
        guidance=settings | {"interval": [200, 900], "classifier_input": ["x_t"], "guidance_scale": [2.0],
                             "smoothgrad": {"samples": 2, "std": 0.1}},
        stabilizers={"e": {"method": "ema", "beta": 0.5}, "none": {}, "adam": {}},
        sampling={"scheduler": "ddim", "num_inference_steps": 5},
        probes=["gradient"],
        recording={"dtype": "float16", "codec": "auto", "tensor_every": 2, "tensor_samples": 64,
                   "sample_dims": ["feature", "row", "column"]},
    ).sel(stabilizer=["e"])  # fmt: skip
    assert_same_arrays(ours, theirs)


@pytest.mark.slow
def test_a_configuration_names_a_stabiliser_of_the_users_own(content, tmp_path):
    """The same class from Python gives the same arrays."""
    changed(content, "stabilizers", {"last_two": {"method": "mymodels:LastTwo", "share": 0.25}})
    changed(content, "sampling.labels", LABELS[:5])
    record_run(run_of(content))
    import mymodels

    denoiser = gradscope.load_denoiser("mymodels:denoiser")
    guidance = ClassifierGuidance(mymodels.robust(), guidance_scale=0.4)
    sampler = GuidedSampler(denoiser.unet, denoiser.scheduler, guidance)
    ours = gradscope.record(
        sampler,
        tmp_path / "python.zarr",
        content["probes"],
        cells={
            "classifier": {"robust": mymodels.robust(), "non_robust": mymodels.non_robust()},
            "stabilizer": {"last_two": mymodels.LastTwo(0.25)},
            **CELLS,
        },
    ).sample(LABELS[:5], 4, batch_size=3)
    assert_same_arrays(ours, open_store(content["recording"]["path"]))


@pytest.mark.slow
def test_every_cell_is_that_of_its_own_sampler(tmp_path, guided, classifier):
    """The grid against plain sampling, without gradscope.record."""
    torch.manual_seed(5)
    other = LinearClassifier(gain=2.0)
    cells = {"classifier": {"a": classifier, "b": other}, "stabilizer": ["none", "adam"], **CELLS}
    ds = gradscope.record(guided, tmp_path / "a.zarr", ["norms"], cells=cells).sample(LABELS, 4, seed=7)
    assert [ds[dim].values.tolist() for dim in ("classifier", "stabilizer")] == [["a", "b"], ["none", "adam"]]
    assert ds["guidance_scale"].values.tolist() == [0.0, 0.4]
    for at in product(range(2), repeat=4):
        guidance = ClassifierGuidance([classifier, other][at[0]], ["x_t", "x0"][at[1]], [0, 0.4][at[3]])
        one = GuidedSampler(guided.unet, guided.scheduler, guidance, [None, Adam()][at[2]])
        assert ds["image"].values[at].tobytes() == one.sample(LABELS, 4, seed=7).numpy().tobytes()
    assert guided.guidance.classifier is classifier
    assert ds.attrs["status"] == "complete"


@pytest.mark.slow
def test_an_interrupted_grid_is_resumed_at_its_first_missing_block(tmp_path, guided):
    whole = gradscope.record(guided, tmp_path / "whole.zarr", ["gradient"], cells=CELLS, classifier_name="a")
    expected = whole.sample(LABELS, 4, batch_size=4)
    steps = []

    def interrupt(step):
        steps.append(step.step)
        if len(steps) == 22:  # in the last block of the third cell
            raise KeyboardInterrupt

    path = tmp_path / "a.zarr"
    with guided.register_step_hook(interrupt), pytest.raises(KeyboardInterrupt) as stopped:
        gradscope.record(guided, path, ["gradient"], cells=CELLS, classifier_name="a").sample(LABELS, 4, batch_size=4)
    assert stopped.value.__notes__ == [f"5 of 8 blocks are recorded in {path}; continue with resume=True"]
    other = gradscope.record(guided, path, ["gradient"], cells=CELLS | {"guidance_scale": [0, 0.5]}, resume=True)
    with pytest.raises(GradscopeError, match="the coordinate guidance_scale has other values in the store"):
        other.sample(LABELS, 4, batch_size=4)
    told = []
    again = gradscope.record(guided, path, ["gradient"], cells=CELLS, resume=True, progress=lambda *n: told.append(n))
    assert_same_arrays(again.sample(LABELS, 4, batch_size=4), expected)
    assert told == [(20 + n, 32) for n in range(1, 13)]


@pytest.mark.slow
def test_the_guides_and_the_judge_are_those_of_evaluate(tmp_path, guided, classifier):
    judge = small_run.another_judge()
    ds = gradscope.record(
        guided, tmp_path / "a.zarr", ["norms"], cells=CELLS, judge=judge, classes=["a", "b", "c", "d"]
    ).sample(LABELS, 4)
    gradscope.record(guided, tmp_path / "b.zarr", ["norms"], cells=CELLS, classes=["a", "b", "c", "d"]).sample(
        LABELS, 4
    )
    after = gradscope.evaluate(tmp_path / "b.zarr", classifier, judge=judge, tell=lambda text: None)
    assert_same_arrays(ds.drop_vars("classifier"), after.drop_vars("classifier"))
    assert ds["class"].values.tolist() == list(ds.attrs["classes"]) == ["a", "b", "c", "d"]
    assert json.loads(ds.attrs["evaluation"])["judge"] == "python:LinearClassifier"
    own = gradscope.record(guided, tmp_path / "c.zarr", ["norms"], judge="none")
    own.sample(LABELS, 4)
    only = gradscope.open(tmp_path / "c.zarr")
    assert "judge_prediction" not in only
    np.testing.assert_array_equal(only["own_prediction"].squeeze(), ds["own_prediction"].values[0, 0, 0, 1])


@pytest.mark.slow
def test_a_recording_leaves_the_models_as_they_were(tmp_path, unet, scheduler):
    """A judge of the samples must not change the layout or the mode of a guide: the next bits would differ."""
    guide = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(4))
    guide(torch.zeros(1, *SHAPE))
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(guide.train(), guidance_scale=0.4))
    judge = small_run.another_judge().train()
    images = [
        gradscope.record(sampler, tmp_path / f"{i}.zarr", ["norms"], judge=judge).sample(LABELS, 4) for i in range(2)
    ]
    assert images[0].numpy().tobytes() == images[1].numpy().tobytes()
    assert guide.training
    assert judge.training
    assert guide[0].weight.is_contiguous()


WRONG = [
    ({"cells": {"classifer": {}}}, "cells: cannot vary 'classifer'; did you mean 'classifier'"),
    ({"cells": [0, 0.4]}, r"cells: takes dimensions and their values, for example .*, got \[0, 0.4\]"),
    ({"cells": {"classifier": nn.Identity()}}, r'cells\["classifier"\]: takes names and values, .* got Ident'),
    ({"cells": {"classifier": {"a": 3}}}, r'cells\["classifier"\]\[\'a\'\]: takes a torch.nn.Module, .* got 3'),
    ({"cells": {"classifier": {"a": LinearClassifier}}}, "got the class LinearClassifier; pass an instance"),
    ({"cells": {"classifier": {"a\n": LinearClassifier()}}}, r'cells\["classifier"\]: a name must have no invisible'),
    ({"cells": {"classifier": {"a": "zoo:sportballs32/jury"}}}, "no 'zoo:sportballs32/jury' in the zoo"),
    ({"cells": {"classifier_input": ["x_t", "x1"]}}, "classifier_input: got 'x1'; one of: x_t, x0, x0_detached"),
    ({"cells": {"classifier_input": ["x_t", "x_t"]}}, r'cells\["classifier_input"\]: names a value twice'),
    ({"cells": {"classifier_input": []}}, r'cells\["classifier_input"\]: takes a list of values, got \[\]'),
    ({"cells": {"stabilizer": ["none", "adm"]}}, "stabilizers.adm: unknown stabilizer 'adm'; did you mean 'adam'"),
    ({"cells": {"stabilizer": {"adam": Adam}}}, r'cells\["stabilizer"\]\[\'adam\'\]: takes a stabiliser'),
    ({"cells": {"stabilizer": Adam()}}, r'cells\["stabilizer"\]: takes names and values'),
    ({"cells": {"guidance_scale": [0, float("nan")]}}, "guidance_scale: must be a finite number .* got nan"),
    ({"cells": {"guidance_scale": [0, 0.0]}}, r'cells\["guidance_scale"\]: names a value twice'),
    ({"cells": {"classifier": {"a": LinearClassifier()}}, "classifier_name": "b"}, "names the sampler's own class"),
    ({"probes": ["norm"]}, "probes: unknown probe 'norm'; did you mean 'norms'"),
    ({"probes": "norms"}, "probes: takes a list of probes, got 'norms'"),
    ({"probes": [{"snr": {}, "layers": {}}]}, r"probes\[0\]: takes a name, or one name with its options"),
    ({"probes": [{"snr": {"drawz": 2}}]}, "probes.snr.drawz: unknown key; did you mean 'draws'"),
    ({"probes": ["norms", Norm("gradient")]}, "two of them record 'gradient_norm'"),
    ({"classes": "abcd"}, "classes: takes a list of names, got 'abcd'"),
    ({"classes": ["a", "b", "c", "a"]}, "classes: names a class twice"),
    ({"classes": ["a", "b"]}, r"classes: must name the 4 classes of classifier 'a', got \['a', 'b'\]"),
    ({"judge": LinearClassifier(classes=3)}, "judge: has 3 classes, classifier 'a' has 4; they must agree"),
    ({"judge": LinearClassifier(size=4)}, "judge: the classifier does not take images of 3 x 8 x 8"),
    ({"judge": 3}, "record: judge: "),
    ({"progress": "bar"}, r"progress: takes True, False or a function of \(done, total\), got 'bar'"),
    ({"codec": "auto", "dtype": "float64"}, "dtype: got 'float64'; did you mean 'float16'"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "said"), WRONG)
def test_wrong_arguments_are_named_and_leave_no_store(tmp_path, guided, wrong, said):
    with pytest.raises(GradscopeError, match=said):
        gradscope.record(guided, tmp_path / "a.zarr", **{"probes": ["norms"]} | wrong).sample(LABELS, 3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (LinearClassifier(size=4), "fails on images of 3 x 8 x 8"),
        (LinearClassifier(classes=5), "classifier 'b': has 5 classes, classifier 'a' has 4; they must agree"),
    ],
)
def test_a_later_guide_that_does_not_fit_leaves_no_store(tmp_path, guided, classifier, wrong, said):
    recorder = gradscope.record(
        guided, tmp_path / "a.zarr", ["norms"], cells={"classifier": {"a": classifier, "b": wrong}}
    )
    with pytest.raises(GradscopeError, match=said):
        recorder.sample(LABELS, 3)
    assert list(tmp_path.iterdir()) == []


def test_names_of_classes_that_differ_are_refused_before_the_recording(tmp_path):
    denoiser = gradscope.load_denoiser("zoo:sportballs32/ddpm")
    robust = gradscope.load_classifier("zoo:sportballs32/robust", (3, 32, 32))
    sampler = GuidedSampler(denoiser.unet, denoiser.scheduler, ClassifierGuidance(robust.module))
    judge, other = "zoo:sportballs32/judge", list(reversed(robust.classes))
    recorder = gradscope.record(sampler, tmp_path / "a.zarr", ["norms"], classes=other, judge=judge)
    with pytest.raises(GradscopeError, match=f"judge: its classes are .*, those of classifier 'a' are .{other[0]!r}"):
        recorder.sample([0], 2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_judge_that_fails_loses_no_sample(tmp_path, guided):
    class Fails(LinearClassifier):
        def forward(self, x):
            if len(x) > 2:  # not when it is loaded
                raise RuntimeError("my judge's mistake")
            return super().forward(x)

    path = tmp_path / "a.zarr"
    with pytest.raises(RuntimeError, match="my judge's mistake"):
        gradscope.record(guided, path, ["norms"], cells=CELLS, judge=Fails()).sample(LABELS, 3)
    assert gradscope.open(path).attrs["status"] == "complete"
    sampled = []
    with guided.register_step_hook(sampled.append):
        again = gradscope.record(guided, path, ["norms"], cells=CELLS, judge=small_run.robust(), resume=True)
        ds = again.sample(LABELS, 3)
    assert sampled == []
    assert np.isfinite(ds["judge_accuracy"]).all()


def test_a_gradient_that_is_not_finite_can_stop_a_grid(tmp_path, unet, scheduler):
    class Broken(LinearClassifier):
        def forward(self, x):
            return super().forward(x) / 0

    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(Broken(), guidance_scale=0.4))
    recorder = gradscope.record(sampler, tmp_path / "a.zarr", ["norms"], cells=CELLS, stop_on_nonfinite=True)
    with pytest.raises(GradscopeError, match="not finite at timestep"):
        recorder.sample(LABELS, 4)


@pytest.mark.slow
def test_progress_is_shown_as_by_the_command(tmp_path, guided, capsys):
    gradscope.record(guided, tmp_path / "a.zarr", ["norms"], cells=CELLS, classifier_name="mine", progress=True).sample(
        LABELS, 4, batch_size=4
    )
    told = [line.strip() for line in capsys.readouterr().out.splitlines() if " steps: mine / " in line]
    # both controls are recorded together, the guided cells one after the other
    last = ("x0 / none / 0.0", "x0 / none / 0.0", "x_t / none / 0.4", "x0 / none / 0.4")
    assert told == [f"{8 * (k + 1)}/32 steps: mine / {cell}" for k, cell in enumerate(last)]
    gradscope.record(guided, tmp_path / "b.zarr", ["norms"], cells=CELLS).sample(LABELS, 4)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_recording_loads_no_command_line():
    code = "import sys, gradscope; gradscope.record; print(any(m.startswith('gradscope.cli') for m in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
