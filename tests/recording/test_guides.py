"""Guides of a configuration: noise-aware classifiers, energies and weighted sums, recorded and evaluated."""

import numpy as np
import pytest
import torch
from own_guides import PROBES, configured, content  # noqa: F401
from small_models import LinearClassifier

import gradscope
from gradscope import ClassifierGuidance, Energy, GuidedSampler, WeightedSum
from gradscope.errors import GradscopeError
from gradscope.evaluation.evaluators import load_evaluators
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.store.attributes import nested
from probes import Belief, Norm, ObjectiveValue


def recorded(config):
    run = prepare(config)
    record_run(run)
    return run, gradscope.open(config.recording.path)


@pytest.mark.slow
def test_an_energy_with_numbers_as_targets(configured):  # noqa: F811
    _, ds = recorded(configured({"mine": {"energy": "mymodels:brightness", "target": [0.5, -0.5]}}))
    mean = ds.pred_original_sample.mean(("channel", "height", "width"))
    target = np.array([0.5, -0.5, 0.5, -0.5, 0.5])
    expected = -((mean - np.broadcast_to(target[:, None], (5, 4))) ** 2)
    np.testing.assert_allclose(ds.energy.squeeze(), expected.squeeze(), rtol=1e-4, atol=1e-7)
    assert ds.attrs["classes"] == []
    assert ds.label.values.tolist() == [0] * 5
    assert "label" in ds.coords


@pytest.mark.slow
def test_an_energy_with_tensors_as_targets_that_a_function_gives(configured):  # noqa: F811
    _, ds = recorded(configured({"mine": {"energy": "mymodels:near", "target": "mymodels:images"}}))
    target = np.array([0.5, -0.5, 0.5, -0.5, 0.5]).reshape(5, 1, 1, 1)
    x_0 = ds.pred_original_sample.squeeze().transpose("timestep", "sample", "channel", "height", "width").values
    a = ds.alphas_cumprod.values.reshape(-1, 1, 1, 1, 1)
    inside = np.abs(x_0) < 1
    gradient = ds.gradient.squeeze().transpose("timestep", "sample", "channel", "height", "width").values
    np.testing.assert_allclose(gradient, -(x_0 - target) * inside / a**0.5, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_sum_of_classifiers_and_a_loss(configured):  # noqa: F811
    terms = [
        {"guide": "mymodels:robust", "weight": 2.0},
        {"guide": {"module": "mymodels:noise_aware", "takes_timestep": True}},
        {"guide": {"energy": "mymodels:loss"}, "weight": -3.0},
    ]
    run, ds = recorded(configured({"whole": {"sum": terms}}))
    torch.manual_seed(1)
    robust = LinearClassifier(gain=2.0)
    torch.manual_seed(5)
    aware = LinearClassifier()
    order = ("sample", "timestep", "channel", "height", "width")
    x_t, x_0 = (torch.tensor(ds[k].squeeze().transpose(*order).values) for k in ("x_t", "pred_original_sample"))
    rows = torch.arange(5)[:, None], torch.arange(4)[None], torch.tensor(ds.label.values)[:, None]
    with torch.no_grad():
        log_p = [f.linear(x_0.flatten(2)).log_softmax(dim=2)[rows] for f in (robust, aware)]
    expected = 2 * log_p[0] + log_p[1] - 3 * x_t.square().flatten(2).mean(dim=2)
    np.testing.assert_allclose(ds.energy.squeeze().transpose("sample", "timestep"), expected, rtol=1e-3, atol=1e-4)
    assert ds.label.values.tolist() == [0, 1, 2, 3, 0]
    assert list(run.classifiers) == []
    assert ds.attrs["classes"] == ["0", "1", "2", "3"]


def test_a_class_is_made_and_its_weights_are_hashed_and_its_layers_seen(configured):  # noqa: F811
    probes = [*PROBES, {"layers": {"names": ["classifier.energy.net"]}}]
    run, ds = recorded(configured({"mine": {"energy": "mymodels:Learned"}}, probes=probes))
    assert set(nested(ds.attrs, "weights_sha256")) == {"denoiser", "classifiers.mine"}
    assert np.isfinite(ds.layer_gradient_norm).all()
    assert (ds.layer_gradient_norm > 0).all()


@pytest.mark.slow
def test_classifiers_and_energies_in_one_run_are_judged_where_they_can_be(configured):  # noqa: F811
    config = configured(
        {"robust": "mymodels:robust", "mine": {"energy": "mymodels:Learned"}}, judge="mymodels:non_robust"
    )
    run, ds = recorded(config)
    said = []
    evaluators = load_evaluators(ds, (), torch.device("cpu"), said.append)
    assert list(evaluators.guides) == ["robust"]
    assert said[0] == "no own_accuracy for mine: an energy or a sum of guides predicts no class"
    found = gradscope.evaluate(config.recording.path, tell=lambda text: None)
    own = found.own_accuracy.squeeze()
    assert np.isfinite(own.sel(classifier="robust"))
    assert np.isnan(own.sel(classifier="mine"))
    assert np.isfinite(found.judge_accuracy).all()
    with pytest.raises(GradscopeError, match="guide: 'mine' is an energy, which predicts no class"):
        gradscope.evaluate(config.recording.path, guide={"mine": Energy(lambda x, t, x_0: x.flatten(1).sum(dim=1))})


@pytest.mark.slow
def test_a_run_of_an_energy_alone_has_nothing_to_be_judged_by(configured):  # noqa: F811
    config = configured({"mine": {"energy": "mymodels:Learned"}})
    recorded(config)
    said = []
    gradscope.evaluate(config.recording.path, tell=said.append)
    assert said[:2] == [
        "no own_accuracy for mine: an energy or a sum of guides predicts no class",
        "no judge_accuracy, no transfer_ratio: judge=... gives them",
    ]


def test_labels_of_an_energy_must_be_the_judges(configured):  # noqa: F811
    sampling = {"num_inference_steps": 4, "samples": 5, "batch_size": 3, "labels": [7]}
    run = prepare(configured({"mine": {"energy": "mymodels:Learned"}}, sampling=sampling, judge="mymodels:robust"))
    with pytest.raises(GradscopeError, match="sampling.labels: the judge has classes 0 to 3, got 7"):
        load_judge(run)


@pytest.mark.parametrize(
    ("guide", "kind"),
    [({"energy": "mymodels:Learned"}, "an energy"), ({"sum": [{"guide": "mymodels:robust"}]}, "a sum of guides")],
)
def test_belief_is_refused_before_the_recording_with_the_guides_name(configured, tmp_path, guide, kind):  # noqa: F811
    config = configured({"robust": "mymodels:robust", "mine": guide}, probes=["norms", "belief"])
    said = f"^probes.belief: Belief needs the logits of a classifier, but classifiers.mine is {kind} and has none"
    with pytest.raises(GradscopeError, match=said):
        prepare(config)
    assert not (tmp_path / "run.zarr").exists()


WRONG = [
    ({"energy": "mymodels:nothing"}, "classifiers.mine.energy: mymodels has no 'nothing'"),
    ({"energy": "mymodels:brightness"}, "classifiers.mine: target is missing; the energy takes one"),
    ({"energy": "mymodels:loss", "target": [1.0]}, "classifiers.mine: target is given, but the energy takes none"),
    ({"energy": "mymodels:near", "target": "mymodels:nothing"}, "classifiers.mine.target: mymodels has no 'nothing'"),
    ({"energy": "mymodels:near", "target": "mymodels:near"}, "classifiers.mine.target: mymodels:near raised TypeError"),
    ({"sum": [{"guide": {"energy": "mymodels:non"}}]}, "classifiers.mine.sum.0.guide.energy: mymodels has no 'non'"),
    ({"sum": [{"guide": "mymodels:wide"}]}, "classifiers.mine.sum.0.guide: the classifier does not take images"),
]


@pytest.mark.parametrize(("guide", "message"), WRONG)
def test_what_cannot_be_loaded_is_refused_by_its_key(configured, guide, message):  # noqa: F811
    with pytest.raises(GradscopeError, match=f"^{message}"):
        prepare(configured({"mine": guide}))


def test_an_output_that_does_not_fit_leaves_no_store(configured, tmp_path):  # noqa: F811
    run = prepare(configured({"mine": {"energy": "mymodels:flat"}}))
    said = r"^classifiers.mine: an energy must give one .* shape \(3,\).*\(3, 3, 8, 8\)"
    with pytest.raises(GradscopeError, match=said):
        record_run(run)
    assert not (tmp_path / "run.zarr").exists()


def test_other_classes_in_a_sum_are_refused(configured, tmp_path):  # noqa: F811
    with (tmp_path / "mymodels.py").open("a") as file:
        file.write("\n\ndef five():\n    return LinearClassifier(classes=5)\n")
    terms = [{"guide": "mymodels:robust"}, {"guide": "mymodels:five"}]
    with pytest.raises(GradscopeError, match=r"classifiers.mine.sum.1.guide: has 5 classes, .*sum.0.guide has 4"):
        prepare(configured({"mine": {"sum": terms}}))


def squares(x, t, x_0):
    return -x.square().flatten(1).sum(dim=1)


def test_an_energy_is_recorded_from_python_and_resumes_with_the_same_targets_alone(tmp_path, unet, scheduler):
    def towards(x, t, x_0, target):
        return -(x_0.flatten(1).mean(dim=1) - target).square()

    def sampler(target):
        return GuidedSampler(unet, scheduler, ClassifierGuidance(Energy(towards, target=target), "x0_detached", 0.4))

    path = tmp_path / "mine.zarr"
    with gradscope.record(sampler([0.1, 0.2]), path, [Norm("gradient"), ObjectiveValue()]) as recorder:
        recorder.sample([0] * 3, 3, batch_size=2)
    whole = sampler([0.1, 0.2]).sample([0] * 3, 3)
    np.testing.assert_allclose(gradscope.open(path).image.squeeze(), whole, rtol=1e-3, atol=1e-3)
    with (
        pytest.raises(GradscopeError, match="the weights of classifiers.mine are not those"),
        gradscope.record(sampler([0.1, 0.3]), path, [Norm("gradient"), ObjectiveValue()], resume=True) as recorder,
    ):
        recorder.sample([0] * 3, 3, batch_size=2)


@pytest.mark.parametrize("guide", [Energy(squares), WeightedSum([(1.0, Energy(squares))])])
def test_belief_is_refused_in_python_with_the_guides_name(tmp_path, unet, scheduler, guide):
    sampler = GuidedSampler(unet, scheduler, ClassifierGuidance(guide))
    with (
        pytest.raises(GradscopeError, match=r"^probes: Belief needs the logits of a classifier, but mine is an? \w+"),
        gradscope.record(sampler, tmp_path / "mine.zarr", [Norm("gradient"), Belief()]) as recorder,
    ):
        recorder.sample([0, 0], 3)
    assert list(tmp_path.iterdir()) == []


def test_an_audit_takes_no_energy():
    with pytest.raises(GradscopeError, match="classifiers: 'mine' is an energy, which predicts no class"):
        gradscope.audit({"mine": Energy(squares)}, torch.zeros(4, 3, 8, 8), torch.zeros(4, dtype=torch.int64))
