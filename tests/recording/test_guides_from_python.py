"""Guides in a grid from Python: noise-aware classifiers, energies and weighted sums, as modules or by their keys."""

import numpy as np
import pytest
import torch
from own_guides import configured, content  # noqa: F401
from small_models import SIZE, LinearClassifier

import gradscope
from gradscope import ClassifierGuidance, Energy, GuidedSampler, Measurement, WeightedSum
from gradscope.errors import GradscopeError
from gradscope.evaluation.evaluate import evaluate_store
from gradscope.evaluation.evaluators import Evaluators, Settings
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run

PROBES = ["gradient", "norms", "energy", "strength"]
LABELS = [0, 1, 2, 3, 0]
TIMED = {"module": "mymodels:noise_aware", "takes_timestep": True}
SUM = {"sum": [{"guide": "mymodels:robust", "weight": 2.0}, {"guide": {"energy": "mymodels:loss"}, "weight": -3.0}]}
GUIDES = {
    "timed": TIMED,
    "bright": {"energy": "mymodels:brightness", "target": [0.5, -0.5]},
    "near": {"energy": "mymodels:near", "target": "mymodels:images"},
    "whole": SUM,
}


def squares(x, t, x_0):
    return -x.square().flatten(1).sum(dim=1)


def towards(x, t, x_0, target):
    return -(x_0.flatten(1).mean(dim=1) - target).square()


class NoiseAware(LinearClassifier):
    def forward(self, *inputs):
        x, t = inputs
        return super().forward(x) * (1 + t[:, None] / 1000)


@pytest.fixture
def guided(unet, scheduler, classifier):
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, "x0_detached", 0.4))


def by_configuration(configured):  # noqa: F811
    """Record and judge as the command does."""
    config = configured(GUIDES, probes=PROBES, judge="mymodels:non_robust")
    run = prepare(config)
    judge = load_judge(run)
    record_run(run)
    settings = Settings(judge=config.judge, evaluation=config.evaluation)
    evaluate_store(config.recording.path, Evaluators(settings, run.classifiers, judge), run.device)
    return gradscope.open(config.recording.path)


def sampler_of_the_configuration():
    denoiser = gradscope.load_denoiser("mymodels:denoiser")
    robust = gradscope.load_classifier("mymodels:robust", (3, SIZE, SIZE)).module
    return GuidedSampler(denoiser.unet, denoiser.scheduler, ClassifierGuidance(robust, "x0_detached", 0.4))


def modules():
    import mymodels

    from gradscope.models.logits import timed

    return {
        "timed": timed(mymodels.noise_aware(), True),
        "bright": Energy(mymodels.brightness, target=[0.5, -0.5]),
        "near": Energy(mymodels.near, target=mymodels.images()),
        "whole": WeightedSum([(2.0, mymodels.robust()), (-3.0, Energy(mymodels.loss))]),
    }


@pytest.mark.slow
@pytest.mark.parametrize("guides", [lambda: GUIDES, modules], ids=["keys", "modules"])
def test_a_grid_of_guides_has_the_arrays_of_the_same_run_by_configuration(configured, tmp_path, guides):  # noqa: F811
    theirs = by_configuration(configured)
    recorder = gradscope.record(
        sampler_of_the_configuration(),
        tmp_path / "python.zarr",
        PROBES,
        cells={"classifier": guides()},
        judge="mymodels:non_robust",
    )
    ours = recorder.sample(LABELS, 4, batch_size=3)
    assert set(ours.variables) == set(theirs.variables)
    for name in ours.variables:
        a, b = ours[name].values, theirs[name].values
        assert a.tolist() == b.tolist() if a.dtype == object else a.tobytes() == b.tobytes(), name
    assert np.isfinite(ours["judge_accuracy"]).all()
    assert np.isfinite(ours["own_accuracy"].squeeze()).values.tolist() == [True, False, False, False]
    assert ours.attrs["weights_sha256"] == theirs.attrs["weights_sha256"]


@pytest.mark.slow
def test_energies_alone_are_recorded_without_verdicts_of_their_own(tmp_path, guided):
    cells = {"classifier": {"a": Energy(squares), "b": Energy(towards, target=[0.1, 0.2, 0.3])}}
    ds = gradscope.record(guided, tmp_path / "a.zarr", ["energy"], cells=cells, judge="none").sample([9] * 5, 3)
    assert np.isfinite(ds["energy"]).all()
    assert "own_accuracy" not in ds
    mean = ds["energy"].sel(classifier="b").squeeze()
    again = gradscope.record(guided, tmp_path / "b.zarr", ["energy"], cells=cells).sample([0] * 5, 3, batch_size=2)
    np.testing.assert_allclose(again["energy"].sel(classifier="b").squeeze(), mean, rtol=1e-4)  # the same targets


def test_a_timestep_that_the_sampler_gives_its_classifier_goes_to_no_other_kind_of_guide(tmp_path, unet, scheduler):
    guidance = ClassifierGuidance(NoiseAware(), takes_timestep=True, timestep_at_x0=0, guidance_scale=0.4)
    sampler = GuidedSampler(unet, scheduler, guidance)
    cells = {"classifier": {"aware": guidance.classifier, "energy": Energy(squares)}, "classifier_input": ["x_t", "x0"]}
    ds = gradscope.record(sampler, tmp_path / "a.zarr", ["norms"], cells=cells, judge="none").sample(LABELS, 3)
    assert np.isfinite(ds["gradient_norm"]).all()
    own = ds["own_accuracy"].squeeze()
    assert np.isfinite(own.sel(classifier="aware")).all()
    assert np.isnan(own.sel(classifier="energy")).all()


def test_another_timestep_is_not_resumed(tmp_path, unet, scheduler):
    def recorder(timestep, **options):
        guidance = ClassifierGuidance(NoiseAware(), "x0", takes_timestep=True, timestep_at_x0=timestep)
        torch.manual_seed(0)
        return gradscope.record(GuidedSampler(unet, scheduler, guidance), tmp_path / "a.zarr", ["norms"], **options)

    recorder(0).sample(LABELS, 3)
    with pytest.raises(GradscopeError, match="timestep_at_x0"):
        recorder(20, resume=True).sample(LABELS, 3)


SUMMED = WeightedSum([(1.0, LinearClassifier())])
FIVE = WeightedSum([(1.0, LinearClassifier()), (1.0, WeightedSum([(2.0, LinearClassifier(classes=5))]))])
WRONG = [
    ({"probes": ["norms", "belief"]}, {"mine": Energy(squares)}, "Belief needs the logits .* but mine is an energy"),
    ({"probes": ["belief"]}, {"mine": Measurement(torch.sin, torch.zeros(1, 3, SIZE, SIZE))}, "mine is a measurement"),
    ({"probes": ["classifier_free"]}, {"mine": Energy(squares)}, "GuidanceWeight needs classifier-free guidance, but"),
    ({}, {"mine": FIVE}, "'mine', sum.1.guide.sum.0.guide: has 5 classes, .*, sum.0.guide has 4"),
    ({"classes": ["a", "b"]}, {"mine": SUMMED}, "the 4 classes of classifier 'mine', sum.0.guide"),
    ({"judge": LinearClassifier(classes=3)}, {"mine": Energy(squares)}, "labels: there are classes 0 to 2, got 3"),
    ({"classes": ["a", "b"]}, {"mine": Energy(squares)}, "labels: there are classes 0 to 1, got 2"),
    ({"judge": Energy(squares)}, {"mine": Energy(squares)}, "judge: takes a classifier, got an energy, which predicts"),
    ({}, {"mine": squares}, r"takes a torch.nn.Module, gradscope.Energy\(function\), or a guide as a conf"),
    ({}, {"mine": {"energy": "mymodels:brightness"}}, r"cells\[\"classifier\"\]\['mine'\]: target is missing"),
    ({}, {"mine": {"energy": 3}}, r"cells\[\"classifier\"\]\['mine'\]: energy: must be text, got 3"),
    ({}, {"mine": {"sum": []}}, r"cells\[\"classifier\"\]\['mine'\]: sum: list must have at least 1 item"),
    ({}, {"mine": {"module": "mymodels:robust", "takes_time": True}}, "takes_time: unknown key; did you mean 'takes_"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "guides", "said"), WRONG)
def test_what_does_not_fit_is_refused_and_leaves_no_store(configured, tmp_path, guided, options, guides, said):  # noqa: F811
    cells, made = {"classifier": guides}, {"probes": ["norms"]} | options
    with pytest.raises(GradscopeError, match=said):
        gradscope.record(guided, tmp_path / "a.zarr", cells=cells, **made).sample(LABELS, 3)
    assert not (tmp_path / "a.zarr").exists()


def test_belief_is_refused_before_sampling(tmp_path, guided):
    with pytest.raises(GradscopeError, match="Belief needs the logits of a classifier, but mine is a sum of guides"):
        gradscope.record(
            guided,
            tmp_path / "a.zarr",
            ["belief"],
            cells={"classifier": {"mine": SUMMED}},
        )


def test_a_classifier_is_loaded_by_the_keys_of_a_module(configured):  # noqa: F811
    loaded = gradscope.load_classifier(TIMED, (3, SIZE, SIZE))
    assert loaded.num_classes == 4
    x, t = torch.ones(2, 3, SIZE, SIZE), torch.tensor([0, 500])
    assert not torch.equal(*loaded.module(x, t))
