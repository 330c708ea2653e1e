"""The leaderboard as a whole: store, resume, seeds, entries of a user's own, and the table."""

import json

import numpy as np
import pytest
import small_leaderboard
import xarray as xr
from scipy import stats

from gradscope.analysis.oracle import ROW, leaderboard_table, open_leaderboard, stabilizer_gains
from gradscope.analysis.oracle_variables import VARIABLES
from gradscope.config import OracleConfig, load
from gradscope.errors import GradscopeError
from gradscope.oracle import leaderboard as module
from gradscope.oracle.leaderboard import leaderboard, save_leaderboard
from gradscope.oracle.methods import load_method_at, load_stabilizers
from gradscope.sampling.guidance.methods import METHODS
from gradscope.stabilizers import METHODS as STABILIZERS
from gradscope.stabilizers import PRESETS
from gradscope.store.derived import save


def config(**settings):
    plain = {
        "mixtures": ["points-separated-2", "points-overlapping-4"],
        "guides": ["exact", "clean_exact"],
        "methods": {"classifier@x_t": {}, "mpgd@x0_detached": {}},
        "stabilizers": {"none": {}, "ema": {"beta": 0.9}},
        "num_inference_steps": 5,
        "samples": 16,
        "replicates": 1,
        "guidance_scale": 3.0,
    }
    return OracleConfig(**plain | settings)


@pytest.fixture(scope="module")
def small():
    return leaderboard(config(), command=["gradscope", "oracle"])


def test_every_number_is_there(small):
    for name, about in VARIABLES.items():
        assert small[name].dims == about.dims
        if "variance" not in name:  # one replicate has none
            assert np.isfinite(small[name]).all(), name
    assert small.gradient_variance.isnull().all()
    exact = small.sel(guide="exact", guidance_method="classifier@x_t", stabilizer="none")
    np.testing.assert_allclose(exact.update_cosine, 1, atol=1e-6)
    np.testing.assert_allclose(exact.update_norm_ratio, 1, atol=1e-6)
    np.testing.assert_allclose(exact.accuracy, exact.right.mean(["replicate", "sample"]), rtol=1e-6)
    np.testing.assert_allclose(small.mean_update_cosine.mean("sample"), small.update_cosine.mean("timestep"), atol=1e-5)


def test_the_store_opens_with_plain_xarray_and_says_where_it_comes_from(small, tmp_path):
    save_leaderboard(small, tmp_path / "a.zarr")
    plain = xr.open_zarr(tmp_path / "a.zarr")
    xr.testing.assert_identical(plain.load().drop_attrs(), small.drop_attrs())
    assert json.loads(plain.attrs["configuration"])["samples"] == 16
    assert json.loads(plain.attrs["stabilizers"])["ema"] == "EMA(beta=0.9, bias_correction=False)"
    assert "gradscope" in json.loads(plain.attrs["versions"])
    assert plain.attrs["command"] == "gradscope oracle"
    assert plain["gradient_cosine"].attrs["equation"]
    xr.testing.assert_identical(open_leaderboard(tmp_path / "a.zarr").drop_attrs(), small.drop_attrs())


@pytest.mark.slow
def test_the_same_seed_gives_the_same_numbers_and_another_does_not(small):
    xr.testing.assert_identical(leaderboard(config()).drop_attrs(), small.drop_attrs())
    assert not np.allclose(leaderboard(config(seed=1)).gradient_cosine, small.gradient_cosine)


def test_a_stabilizer_is_scored_alike_whatever_else_is(small):
    alone = leaderboard(config(stabilizers={"ema": {"beta": 0.9}}, mixtures=["points-overlapping-4"]))
    same = small.sel(stabilizer=["ema"], mixture=["points-overlapping-4"])
    xr.testing.assert_allclose(alone.drop_attrs(), same.drop_attrs(), rtol=1e-5)


@pytest.mark.slow
def test_an_interrupted_leaderboard_goes_on(small, tmp_path, monkeypatch):
    out, made, real = tmp_path / "a.zarr", [], module.cells

    def until_the_third(place, kind, at, stabilizers):
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(kind)
        return real(place, kind, at, stabilizers)

    monkeypatch.setattr(module, "cells", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        leaderboard(config(), out=out)
    with pytest.raises(GradscopeError, match=r"holds part of a leaderboard of another configuration"):
        leaderboard(config(seed=1), out=out)
    calls = []
    monkeypatch.setattr(module, "cells", lambda *args: calls.append(1) or real(*args))
    steps = []
    whole = leaderboard(config(), out=out, on_step=lambda done, total: steps.append((done, total)))
    assert len(calls) == 8 - 3
    assert steps[-1] == (8, 8)
    xr.testing.assert_identical(whole.drop_attrs(), small.drop_attrs())
    save_leaderboard(whole, out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.zarr"]


MINE = """
from dataclasses import dataclass
from gradscope.methods import Method, pull
from gradscope.stabilizers import Stabilizer

@dataclass(frozen=True)
class Backwards(Method):
    def pull(self, view):
        answer = view.ask()
        return pull(-view.gradient(answer.scores, view.x_t), answer)

@dataclass(frozen=True)
class Twice(Stabilizer):
    factor: float = 2.0
    def init(self, x_T):
        return None
    def update(self, gradient, state):
        return self.factor * gradient, state
"""


def test_a_method_and_a_stabilizer_of_the_users_own_enter_by_one_file(tmp_path, monkeypatch):
    (tmp_path / "my_oracle.py").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    ds = leaderboard(
        config(
            methods={"my_oracle:Backwards": {}, "classifier@x_t": {}},
            stabilizers={"none": {}, "my_oracle:Twice": {}, "half": {"method": "my_oracle:Twice", "factor": 0.5}},
            guides=["exact"],
        )
    )
    mine = ds.sel(guidance_method="my_oracle:Backwards", guide="exact", path="control")
    np.testing.assert_allclose(mine.update_cosine, -1, atol=1e-6)
    np.testing.assert_allclose(mine.update_norm_ratio.sel(stabilizer="my_oracle:Twice"), 2, rtol=1e-6)
    np.testing.assert_allclose(mine.update_norm_ratio.sel(stabilizer="half"), 0.5, rtol=1e-6)
    accuracy = ds.accuracy.mean(["mixture", "guide", "stabilizer"])
    assert accuracy.sel(guidance_method="my_oracle:Backwards") < accuracy.sel(guidance_method="classifier@x_t")


def test_the_full_preset_has_every_method_that_takes_classifiers():
    full = load(OracleConfig, "oracle_full.yaml")
    used = {name.partition("@")[0] for name in full.methods}
    assert set(METHODS) - used == {"pigdm"}
    with pytest.raises(GradscopeError, match="pigdm needs a linear measurement"):
        leaderboard(config(methods={"pigdm": {}}))
    assert set(full.mixtures) == {
        f"{kind}-{overlap}-{classes}"
        for kind in ("points", "vectors", "images")
        for overlap in ("separated", "overlapping")
        for classes in (2, 4, 10)
    }


def test_by_default_every_stabilizer_is_scored_once():
    found = load_stabilizers(None)
    every = [*(kind() for kind in STABILIZERS.values()), *PRESETS.values()]
    assert set(found.values()) == set(every)
    assert len(set(found.values())) == len(found)
    assert found["adam"] == PRESETS["adam_paper"]


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("dsp", {}, "methods.dsp: guidance.method: unknown method 'dsp'; did you mean 'dps'"),
        ("dps@x_t", {}, "methods.dps@x_t: is not defined at 'x_t'"),
        ("dps@x1", {}, "methods.dps@x1: is not defined at 'x1'"),
        ("lgd@x0", {"draws": 0}, "draws"),
        ("mine", {"method": "nowhere:Method"}, "cannot import 'nowhere'"),
    ],
)
def test_unfit_methods_are_named(name, settings, said):
    with pytest.raises(GradscopeError, match=said):
        load_method_at(name, settings)


def test_settings_may_say_what_the_name_does_not():
    found = load_method_at("mine", {"method": "lgd", "classifier_input": "x0_detached", "draws": 2})
    assert (found.method.draws, found.classifier_input) == (2, "x0_detached")
    assert load_method_at("mpgd", {}).classifier_input == "x0_detached"


def test_an_unknown_mixture_is_named_before_any_work():
    with pytest.raises(GradscopeError, match="mixtures: got 'points-4'"):
        leaderboard(config(mixtures=["points-separated-2", "points-4"]))


def test_the_table_is_sorted_and_its_numbers_are_those_of_the_store(small):
    table = leaderboard_table(small)
    assert len(table) == 8
    assert table["update_cosine"].is_monotonic_decreasing
    row = table.query("guide == 'clean_exact' and guidance_method == 'mpgd@x0_detached' and stabilizer == 'ema'").iloc[
        0
    ]
    cell = small.sel(guide="clean_exact", guidance_method="mpgd@x0_detached", stabilizer="ema")
    none = small.sel(guide="clean_exact", guidance_method="mpgd@x0_detached", stabilizer="none")
    by_sample = cell.mean_update_cosine.sel(path="control").mean("mixture").values
    low, high = stats.t.interval(0.95, 15, by_sample.mean(), stats.sem(by_sample))
    assert row["update_cosine"] == pytest.approx(by_sample.mean())
    assert (row["update_cosine_low"], row["update_cosine_high"]) == (pytest.approx(low), pytest.approx(high))
    assert row["accuracy"] == pytest.approx(cell.right.mean())
    gain = (cell.right.astype(float) - none.right).mean(["mixture", "replicate"]).values
    assert row["gain"] == pytest.approx(gain.mean())
    assert row["gain_high"] - row["gain"] == pytest.approx(stats.t.ppf(0.975, 15) * stats.sem(gain))
    one = leaderboard_table(small, "points-separated-2").set_index(list(ROW))
    kl = cell.kl.sel(mixture="points-separated-2")
    assert one.loc[("clean_exact", "mpgd@x0_detached", "ema"), "kl"] == pytest.approx(float(kl))
    assert (one.xs("none", level="stabilizer")["gain"] == 0).all()
    with pytest.raises(GradscopeError, match="mixture: got 'lines'"):
        leaderboard_table(small, "lines")


def test_gains_are_paired_differences_to_none(small):
    table = stabilizer_gains(small).set_index(["guidance_method", "stabilizer"])
    assert list(table.index) == [("classifier@x_t", "ema"), ("mpgd@x0_detached", "ema")]
    row = table.loc[("mpgd@x0_detached", "ema")]
    cells = small.sel(guidance_method="mpgd@x0_detached")
    for name, values, over in (
        ("cosine", cells.mean_update_cosine.sel(path="control").astype(float), ["mixture", "guide"]),
        ("accuracy", cells.right.astype(float), ["mixture", "guide", "replicate"]),
    ):
        change = (values.sel(stabilizer="ema") - values.sel(stabilizer="none")).mean(over).values
        assert row[name] == pytest.approx(change.mean(), rel=1e-4)
        assert row[f"{name}_high"] - row[name] == pytest.approx(stats.t.ppf(0.975, 15) * stats.sem(change), rel=1e-4)


def test_without_none_there_is_no_gain(small):
    alone = small.sel(stabilizer=["ema"])
    assert leaderboard_table(alone)["gain"].isna().all()
    assert stabilizer_gains(alone).empty


def test_a_store_of_another_kind_is_refused(small, tmp_path):
    save(small.assign_attrs(kind="audit"), tmp_path / "b.zarr")
    with pytest.raises(GradscopeError, match="its kind is 'audit', wanted 'oracle'"):
        open_leaderboard(tmp_path / "b.zarr")
    save(small.drop_vars("right"), tmp_path / "c.zarr")
    with pytest.raises(GradscopeError, match="right must have the dimensions"):
        open_leaderboard(tmp_path / "c.zarr")
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        open_leaderboard(tmp_path / "nothing.zarr")


@pytest.mark.slow
def test_a_flipped_bit_of_any_chunk_is_refused(tmp_path):
    path = small_leaderboard.saved(tmp_path / "a.zarr")
    chunks = [file for file in sorted(path.rglob("*")) if file.is_file() and file.name != "zarr.json"]
    for file in chunks:
        before = file.read_bytes()
        file.write_bytes(before[:-9] + bytes([before[-9] ^ 1]) + before[-8:])
        with pytest.raises(GradscopeError, match="its checksum does not match its bytes"):
            open_leaderboard(path)
        file.write_bytes(before)
    assert open_leaderboard(path)["accuracy"].size


@pytest.mark.parametrize(("name", "value"), [("mean_update_cosine", 1.5), ("coverage", -0.5), ("right", 7)])
def test_values_outside_of_their_range_are_refused(tmp_path, name, value):
    ds = small_leaderboard.made()
    ds[name].values.flat[0] = value
    save(ds, tmp_path / "a.zarr")
    with pytest.raises(GradscopeError, match=rf"a.zarr: {name} is {value:g}, outside of \["):
        open_leaderboard(tmp_path / "a.zarr")
