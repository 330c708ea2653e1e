"""The script of the population: the rows that it takes from stores, and the rule that it fits to rows."""

import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML
from small_store import evaluated, save
from statsmodels.stats.proportion import proportion_confint

from gradscope import open as open_store
from gradscope.analysis.logistic import fit_logistic
from gradscope.auditing.prediction import FEATURES, VARIABLES, features, read_rule
from gradscope.config import TrainClassifierConfig, load
from gradscope.models import cards

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "runs" / "results" / "population.csv"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(ROOT / "runs" / "population.py"))


def card(path, accuracy_x_t):
    metrics = {
        name: {"value": value, "n": 100}
        for name, value in {"accuracy_clean": 1.0, "accuracy_x_t": accuracy_x_t}.items()
    }
    content = {"kind": "classifier", "architecture": {"timm": "resnet10t", "options": {}}, "classes": ["a", "b"]}
    content |= {"data": {"name": "sportballs"}, "train_on": "clean", "seed": 0, "steps": 1, "batch_size": 1}
    content |= {"duration": 1.0, "device": "cpu", "versions": {}, "sha256": "0" * 64, "metrics": metrics}
    cards.write(path, cards.Card.model_validate(content))


def store(path, accuracy, scale, seed, inputs=("x_t", "x0"), **attributes):
    """A store of one guide at both inputs, with every diagnostic that features need."""
    rng = np.random.default_rng(seed)
    ds = evaluated().isel(classifier=[0], stabilizer=[0], guidance_scale=[1 if scale else 0])
    ds = ds.sel(classifier_input=list(inputs))
    like = ds["gradient_cosine"]
    for name in VARIABLES:
        ds[name] = like.dims, rng.integers(0, 4, like.shape).astype("int16" if name == "predicted_class" else "float32")
    ds["judge_accuracy"] = ds["transfer_ratio"].dims, np.array(accuracy).reshape(1, -1, 1, 1)
    return save(ds.assign_attrs({"status": "complete", "evaluation": "{}"} | attributes), path)


@pytest.mark.slow
def test_rows_are_those_of_the_stores_that_are_complete(script, tmp_path, capsys):
    models, stores = tmp_path / "models", tmp_path / "stores"
    models.mkdir()
    stores.mkdir()
    store(stores / "unguided.zarr", [0.25], 0, 9, inputs=["x_t"])
    for i, name in enumerate(["clean_0", "vit_1", "noisy_3"]):
        card(models / f"{name}.yaml", 0.3 + i / 10)
        store(stores / f"{name}.zarr", [0.5, 0.75], 0.5, i, status="running" if name == "noisy_3" else "complete")
        store(stores / f"{name}.control.zarr", [0.25, 0.25], 0, 10 + i)
    table = tmp_path / "population.csv"
    rows = script["collect"](models, stores, table)
    assert rows["guide"].tolist() == ["clean_0", "clean_0", "vit_1", "vit_1"]
    assert rows["input"].tolist() == ["x_t", "x0"] * 2
    assert rows["judged"].tolist() == [8, 12] * 2  # of 16
    assert rows["fails"].tolist() == [True, False] * 2  # half of the gap is at 0.625
    assert rows["accuracy_x_t"].tolist() == [0.3, 0.3, 0.4, 0.4]
    assert "noisy_3: not recorded yet" in capsys.readouterr().err
    control = open_store(stores / "vit_1.control.zarr").isel(classifier=0, stabilizer=0, guidance_scale=0)
    wanted = features(control.sel(classifier_input="x0").load())
    assert rows.loc[3, list(FEATURES)].to_dict() == pytest.approx(wanted, abs=1e-4)

    rows.to_csv(table, index=False)
    (models / "clean_0.yaml").unlink()  # its rows stay; those of stores that are there are replaced
    for name in ("vit_1", "noisy_3"):
        shutil.rmtree(stores / f"{name}.zarr")
    store(stores / "vit_1.zarr", [0.25, 0.5], 0.5, 1)
    store(stores / "noisy_3.zarr", [0.75, 1], 0.5, 2)
    again = script["collect"](models, stores, table)
    assert again["guide"].tolist() == ["clean_0", "clean_0", "vit_1", "vit_1", "noisy_3", "noisy_3"]
    assert again["judged"].tolist() == [8, 12, 4, 8, 12, 16]
    pd.testing.assert_frame_equal(again[:2], rows[:2])


def population(seed=0, noise=0.05):
    """Guides whose gradients' cosine decides whether they fail; all else is chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for kind, mean in {"clean": 0.2, "vit": 0.3, "noisy": 0.8, "timed": 0.75}.items():
        for i in range(6):
            for where in ("x_t", "x0"):
                cosine = mean + (0.2 if where == "x0" else 0) + noise * rng.normal()
                fails = cosine + noise * rng.normal() < 0.6
                rows.append({"guide": f"{kind}_{i}", "input": where, "samples": 128, "judged": 40 if fails else 120}
                            | {"unguided": 0.25, "fails": fails, "accuracy_clean": 1.0, "accuracy_x_t": rng.random()}
                            | {name: rng.random() for name in FEATURES} | {"gradient_cosine": cosine})  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.slow
def test_the_rule_is_fitted_on_even_seeds_and_tested_on_the_others(script):
    rows = population()
    rule, text = script["assess"](rows)
    assert next(iter(rule.features)) == "gradient_cosine"
    assert (rule.guides, rule.tested) == (12, 12)
    even = rows["guide"].str[-1].isin(["0", "2", "4"]).to_numpy()
    x, fails = rows[list(rule.features)].to_numpy(), rows["fails"].to_numpy()
    fitted = fit_logistic(x[even], fails[even])
    assert rule.intercept == pytest.approx(fitted.intercept, abs=1e-4)
    assert list(rule.features.values()) == pytest.approx(fitted.weights, abs=1e-4)
    score = fitted(x)
    pairs = [(a > b) + (a == b) / 2 for a in score[~even & fails] for b in score[~even & ~fails]]
    assert rule.auc == pytest.approx(np.mean(pairs), abs=1e-3)
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in text.splitlines() if line.startswith("| ")}
    assert lines["accuracy on clean images alone"][1] == "0.500 [0.500, 0.500]"
    assert lines["its features, one kind left out at a time"][2:4] == ["24", "48"]
    assert float(lines["gradient cosine alone"][1].split()[0]) > 0.9


def test_the_table_has_intervals_over_guides(script):
    rows = population()
    text = script["accuracies"](rows)
    out = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    clean = next(line for line in out if line[:2] == ["clean", "x_t"])
    some = rows[rows["guide"].str.startswith("clean") & (rows["input"] == "x_t")]
    low, high = proportion_confint(some["judged"].sum(), some["samples"].sum(), method="wilson")
    assert clean[4] == f"[{low:.3f}, {high:.3f}]"
    share = (some["judged"] / 128).to_numpy()
    wanted = np.clip(share.mean() + np.array([0, -1, 1]) * 2.5706 * share.std(ddof=1) / 6**0.5, 0, 1)
    assert clean[3] == f"{wanted[0]:.3f} [{min(wanted[1], low):.3f}, {max(wanted[2], high):.3f}]"
    assert (clean[2], clean[6]) == ("6", str(some["fails"].sum()))
    assert len(out) == 2 + 8


def test_every_kind_has_a_training(script):
    for kind in script["KINDS"]:
        config = load(TrainClassifierConfig, str(ROOT / "runs" / "train" / "population" / f"{kind}.yaml"))
        assert config.output == f"runs/models/population/{kind}"
        assert config.training.seed == script["KINDS"][kind].seed


def test_training_passes_what_exists_and_sets_seeds(script, tmp_path, monkeypatch):
    commands = []
    monkeypatch.setitem(script["train"].__globals__, "gradscope", lambda *words: commands.append(list(map(str, words))))
    (tmp_path / "vit_0.yaml").touch()
    script["train"](tmp_path, ["vit", "calibrated"])
    assert len(commands) == 3
    assert commands[0][:2] == ["train", "classifier"]
    assert {"data.seed=101", "training.seed=401", f"output={tmp_path / 'vit_1'}"} <= set(commands[0])
    assert commands[1][:4] == ["train", "temperature", "--card", str(tmp_path / "clean_0.yaml")]


@pytest.mark.slow
def test_the_committed_rule_is_that_of_the_committed_table(script, tmp_path):
    rule, _ = script["assess"](pd.read_csv(TABLE))
    assert rule == read_rule()
    YAML().dump(rule.model_dump(), tmp_path / "rule.yaml")
    assert (tmp_path / "rule.yaml").read_text() == (ROOT / "gradscope" / "auditing" / "rule.yaml").read_text()
