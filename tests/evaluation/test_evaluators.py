"""What a store's configuration and `--set` give for an evaluation."""

import json
import shutil

import pytest
import torch
import xarray as xr

from gradscope.config import RunConfig, check, load
from gradscope.errors import GradscopeError
from gradscope.evaluation.evaluators import load_evaluators
from gradscope.models import cards

CPU = torch.device("cpu")
SPORTBALLS = {"name": "sportballs", "size": 32, "channels": 3, "path": None, "samples": 100_000, "seed": 0}


def store(size: int = 32, **changes) -> xr.Dataset:
    """As much of a store of both.yaml as is needed here."""
    content = load(RunConfig, "both.yaml").model_dump(mode="json") | changes
    configuration = check(RunConfig, content, "test").model_dump_json()
    return xr.Dataset(coords={"channel": range(3), "height": range(size), "width": range(size)}).assign_attrs(
        configuration=configuration
    )


def loaded(ds: xr.Dataset, *overrides: str):
    said = []
    return load_evaluators(ds, overrides, CPU, said.append), said


def test_a_denoiser_of_the_zoo_brings_its_data_and_the_extractor_of_its_set():
    found, said = loaded(store())
    assert said == []
    assert found.settings.evaluation.extractor == "zoo:sportballs32/extractor"
    assert found.settings.evaluation.data.model_dump() == SPORTBALLS
    assert found.extractor.num_features == 96
    assert sorted(found.guides) == ["non_robust", "robust"]
    assert found.judge.classes == ("baseball", "basketball", "soccer ball", "volleyball")
    assert sorted(found.of_cell("robust")) == ["judge", "own"]


def test_the_card_of_ones_own_denoiser_brings_its_data_and_no_extractor(tmp_path):
    shutil.copy(cards.resolve("zoo:sportballs32/ddpm", "denoiser"), tmp_path / "mine.yaml")
    found, said = loaded(store(denoiser=str(tmp_path / "mine.yaml")))
    assert found.settings.evaluation.data.model_dump() == SPORTBALLS
    assert found.extractor is None
    assert said == ["no distances, no coverage: --set evaluation.extractor=... gives them"]


def test_configuration_comes_before_the_default_and_set_before_both():
    seventh = SPORTBALLS | {"seed": 7}
    ds = store(evaluation={"data": seventh, "extractor": "zoo:sportballs32/judge", "replicates": 9})
    found, _ = loaded(ds)
    assert found.settings.evaluation.model_dump() == {
        "data": seventh,
        "extractor": "zoo:sportballs32/judge",
        "samples": 8192,
        "replicates": 9,
    }
    found, said = loaded(ds, "evaluation.extractor=zoo:sportballs32/robust", "evaluation.data.seed=8", "judge=none")
    assert found.settings.evaluation.extractor == "zoo:sportballs32/robust"
    assert found.settings.evaluation.data.seed == 8
    assert found.settings.evaluation.replicates == 9
    assert found.judge is None
    assert said == ["no judge_accuracy, no transfer_ratio: --set judge=... gives them"]
    assert sorted(found.of_cell("robust")) == ["own"]


def test_a_store_of_before_there_was_an_evaluation_has_its_defaults():
    ds = store()
    content = json.loads(ds.attrs["configuration"])
    del content["evaluation"]
    found, _ = loaded(ds.assign_attrs(configuration=json.dumps(content)))
    assert found.settings.evaluation.replicates == 200
    assert found.extractor is not None


def test_everything_must_take_the_stores_images():
    with pytest.raises(GradscopeError, match=r"^classifiers\.robust: robust was trained on images of 3 x 32 x 32"):
        loaded(store(size=16))
