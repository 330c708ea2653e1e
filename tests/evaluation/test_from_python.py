"""Evaluating a store from Python."""

import json

import numpy as np
import pytest
import torch
from notebook import FLAG, LABELS, PROBES, cell, own_loop
from small_models import SIZE, LinearClassifier

import gradscope
from gradscope import ClassifierGuidance, GuidedSampler
from gradscope.errors import GradscopeError
from probes import Norm


@pytest.fixture
def guided(unet, scheduler, classifier) -> GuidedSampler:
    return GuidedSampler(unet, scheduler, ClassifierGuidance(classifier, guidance_scale=0.4))


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

    @pytest.mark.slow
    def test_an_extractor_and_data_give_distances(self, stored, judge):
        data = {"name": "sportballs", "size": SIZE}
        ds = gradscope.evaluate(stored, extractor=judge, data=data, tell=lambda text: None)
        assert np.isfinite(ds["kd_LinearClassifier"]).all()
        assert "own_accuracy" not in ds

    def test_the_numbers_of_real_images_and_of_replicates_are_set(self, stored, judge):
        given = {"extractor": judge, "data": {"name": "sportballs", "size": SIZE}, "tell": lambda text: None}
        ds = gradscope.evaluate(stored, samples=40, replicates=7, **given)
        assert ds.sizes["replicate"] == 7
        assert json.loads(ds.attrs["evaluation"])["real_images"] < 40
        with pytest.raises(GradscopeError, match="evaluation.samples: must be greater than or equal to 4, got 2"):
            gradscope.evaluate(stored, samples=2, **given)

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
