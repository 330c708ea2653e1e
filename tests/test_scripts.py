"""The scripts in runs/ that answer a question from a store: their numbers by loops, and their text."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from small_store import SAMPLES, TIMESTEPS, evaluated, recorded, save
from statsmodels.stats.proportion import proportion_confint

from gradscope.errors import GradscopeError

RUNS = Path(__file__).parent.parent / "runs"
FEW = {"classifier_input": [0], "stabilizer": [0], "guidance_scale": [1]}


def script(name):
    return runpy.run_path(str(RUNS / f"{name}.py"))


@pytest.fixture
def ds():
    return evaluated()


@pytest.mark.parametrize("name", ["where_unstable", "does_x0_help", "when_is_it_decided"])
def test_scripts_take_a_store_and_print_the_answer(name, ds, tmp_path, monkeypatch, capsys):
    few = ds.isel(FEW | {"stabilizer": [0, 1]})
    monkeypatch.setattr(sys, "argv", [name, str(save(few, tmp_path / "a.zarr"))])
    runpy.run_path(str(RUNS / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.splitlines() == script(name)["answer"](few)


def test_where_unstable_finds_only_the_white_noise(ds):
    healthy, noise = (script("where_unstable")["answer"](ds.isel(FEW | {"classifier": [k]})) for k in (0, 1))
    values = ds["gradient_lag_cosine"].values[1, 0, 0, 1].mean(axis=0)
    worst = int(np.nanargmin(values))
    t = ds["timestep"].values
    start = f"non_robust, x_t, no stabiliser, s = 0.5: N = {SAMPLES}, lowest at t = {t[worst]}: {values[worst]:.2f} ["
    assert noise[0].startswith(start)
    assert noise[1] == f"  below 0.4 at {TIMESTEPS - 1} of {TIMESTEPS - 1} timesteps: {t[1]} to {t[-1]}"
    assert (
        f"inside the permutation null (12 pairs) at {TIMESTEPS - 1} of {TIMESTEPS - 1}: {t[1]} to {t[-1]};" in noise[2]
    )
    assert healthy[1:] == [
        f"  below 0.4 at 0 of {TIMESTEPS - 1} timesteps: nowhere",
        f"  inside the permutation null (12 pairs) at 0 of {TIMESTEPS - 1}: nowhere",
    ]


def test_where_unstable_names_runs_of_timesteps():
    ranges = script("where_unstable")["ranges"]
    t = np.array([9, 7, 5, 3, 1])
    assert ranges(t, np.array([True, True, False, True, False])) == "9 to 7, 3"
    assert ranges(t, np.ones(5, dtype=bool)) == "9 to 1"
    assert ranges(t, np.zeros(5, dtype=bool)) == "nowhere"


def test_where_unstable_on_stores_that_lack_something(ds):
    answer = script("where_unstable")["answer"]
    few = ds.isel(FEW)
    assert "no permutation null: it needs the gradients, which the probe" in answer(few.drop_vars("gradient"))[2]
    few["written"][1] = 0
    few["gradient_lag_cosine"][1] = np.nan
    assert answer(few)[3:] == ["non_robust, x_t, no stabiliser, s = 0.5: nothing written"]
    with pytest.raises(GradscopeError, match="gradient_lag_cosine is not in this store; the probe `cosines`"):
        answer(ds.drop_vars("gradient_lag_cosine"))


def test_does_x0_help_is_paired_over_samples(ds):
    lines = script("does_x0_help")["answer"](ds)
    assert [line for line in lines if not line.startswith(" ")] == ["robust:", "non_robust:"]
    judged = ds["judge_prediction"].values == ds["label"].values
    x0, plain = judged[0, 1, 0, 1], judged[0, 0, 0, 1]
    (line,) = [line for line in lines[: len(lines) // 2] if line.startswith("  x0 (none), scale 0.5: ")]
    change = x0.mean() - plain.mean()
    assert f", {change:+.3f} [" in line
    assert line.endswith(f"], N = {SAMPLES}, insufficient samples: {SAMPLES} of 64")
    assert len(lines) == 2 * (1 + 5)
    with pytest.raises(GradscopeError, match="judge_prediction is not in this store; `gradscope evaluate STORE`"):
        script("does_x0_help")["answer"](recorded())
    assert script("does_x0_help")["answer"](ds.isel(FEW))[0].startswith("nothing to compare")


def test_does_x0_help_gives_a_verdict_and_p_with_enough_samples(ds):
    many = ds.isel(sample=np.tile(np.arange(SAMPLES), 5), classifier=[0], stabilizer=[0], guidance_scale=[1])
    label = many["label"].values
    right = np.stack([np.arange(80) % 2 == 0, np.ones(80, dtype=bool)])
    many["judge_prediction"][0, :, 0, 0] = np.where(right, label, (label + 1) % 4)
    _, line = script("does_x0_help")["answer"](many)
    assert line.startswith("  x0 (none), scale 0.5: helps, +0.500 [")
    assert line.endswith(f"N = 80, p = {2.0**-40:.2g}")
    verdict = script("does_x0_help")["verdict"]
    row = {"accuracy": -0.1, "accuracy_low": -0.2, "accuracy_high": -0.01, "p_holm": np.nan}
    assert verdict(row) == "harms"
    assert verdict(row | {"p_holm": 0.06}) == "undecided"
    assert verdict(row | {"accuracy_high": 0.01}) == "undecided"


def test_a_class_is_decided_when_it_no_longer_changes():
    decided = script("when_is_it_decided")["decided"]
    rng = np.random.default_rng(0)
    seen, final = rng.integers(0, 2, (50, 6)), rng.integers(0, 2, 50)
    found = decided(seen, final)
    for i in range(50):
        for k in range(6):
            assert found[i, k] == all(seen[i, later] == final[i] for later in range(k, 6))


def test_when_is_it_decided_counts_samples(ds):
    few = ds.isel(FEW)
    few["judge_prediction"][0, 0, 0, 0, :3] = -1
    lines = script("when_is_it_decided")["answer"](few)
    t = ds["timestep"].values
    shown = [0, 2, 4, 7, 9]
    assert lines[0].split("decided by")[1].split() == [word for k in shown for word in ("t", "=", str(t[k]))]
    seen, judge = few["predicted_class"].values[0, 0, 0, 0], few["judge_prediction"].values[0, 0, 0, 0]
    for line, final, rows in ((lines[1], seen[:, -1], range(SAMPLES)), (lines[2], judge, range(3, SAMPLES))):
        shares = []
        for k in range(TIMESTEPS):
            shares.append(
                sum(all(seen[i, later] == final[i] for later in range(k, TIMESTEPS)) for i in rows) / len(rows)
            )
        half = next(k for k in range(TIMESTEPS) if shares[k] >= 0.5)
        assert f"half of N = {len(rows)} by t = {t[half]} " in line
        for k in shown:
            low, high = proportion_confint(round(shares[k] * len(rows)), len(rows), method="wilson")
            assert f"{shares[k]:.2f} [{low:.2f}, {high:.2f}]" in line


def test_when_is_it_decided_on_stores_that_lack_something(ds):
    answer = script("when_is_it_decided")["answer"]
    few = ds.isel(FEW | {"classifier": [0]})
    assert len(answer(few.drop_vars("judge_prediction"))) == 2
    few["written"][..., -1] = 0
    assert answer(few)[1:] == ["  guide: no finished sample", "  judge: no finished sample"]
    other = ds.isel(FEW | {"classifier": [0]})
    other["judge_prediction"][:] = (other["predicted_class"].values[..., -1] + 1) % 4
    assert "judge: never half of N = 16" in answer(other)[2]
    with pytest.raises(GradscopeError, match="predicted_class is not in this store; the probe `belief` records it"):
        answer(ds.drop_vars("predicted_class"))
