"""Several stores as one dataset: values, laziness, analyses by run, and grids that differ."""

import json

import dask
import numpy as np
import pytest
import xarray as xr
from small_store import BAD, GOOD, evaluated, save

import gradscope
from gradscope.analysis import compare, summary
from gradscope.errors import GradscopeError


def other() -> xr.Dataset:
    """The same grid with other values, seeds, order of cells, and one variable less."""
    ds = evaluated().drop_vars("margin").isel(classifier=[1, 0])
    ds["gradient_norm"] = 2 * ds["gradient_norm"]
    ds["judge_prediction"] = (ds["judge_prediction"] + 1) % 4
    ds["coverage_floor"] = 0.5
    configuration = json.dumps({"judge": "none", "sampling": {"seed": 7}})
    return ds.assign_coords(seed=("sample", np.arange(16) + 100)).assign_attrs(run_id="77", configuration=configuration)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    first = evaluated().assign_coords(seed=("sample", np.arange(16)))
    return [save(first, folder / "first.zarr"), save(other(), folder / "second.zarr")]


@pytest.mark.slow
def test_values_are_those_of_each_store(paths):
    runs = gradscope.open_many(paths)
    assert runs.run.values.tolist() == ["first", "second"]
    assert runs.gradient_norm.dims[4:] == ("run", "sample", "timestep")
    for path in paths:
        ds = gradscope.open(path)
        mine = runs.sel(run=path.stem)
        for name in ("gradient_norm", "gradient", "image", "judge_prediction", "written", "coverage_interval"):
            np.testing.assert_array_equal(mine[name], ds[name].sel(classifier=runs.classifier.values))
        np.testing.assert_array_equal(mine.seed, ds.seed)
    assert set(runs.attrs["left_out"]) == {"coverage_floor", "margin"}
    assert json.loads(runs.attrs["runs"]) == {"first": "5f0c", "second": "77"}
    assert json.loads(runs.attrs["configuration"]) == {"judge": "none"}


def test_opening_reads_no_tensor(paths):
    def fail(*_, **__):
        raise AssertionError("computed")

    with dask.config.set(scheduler=fail):
        runs = gradscope.open_many(paths)
        assert runs.gradient.chunks is not None


@pytest.mark.slow
def test_analyses_take_runs_as_cells(paths):
    runs = gradscope.open_many(dict(zip("ab", paths, strict=True)))
    found = runs.gradscope.summary()
    for name, path in zip("ab", paths, strict=True):
        alone = summary(gradscope.open(path)).sel(classifier=["robust", "non_robust"])
        np.testing.assert_array_equal(found.judge_accuracy.sel(run=name), alone.judge_accuracy)
    across = runs.gradscope.compare(GOOD | {"run": "a"}, GOOD | {"run": "b"})
    a, b = (gradscope.open(path).sel(GOOD).judge_prediction for path in paths)
    label, known = runs.label.values, (a.values >= 0) & (b.values >= 0)
    expected = np.mean((b.values == label)[known]) - np.mean((a.values == label)[known])
    assert across.accuracy.estimate == pytest.approx(expected)
    within = runs.sel(run="a").gradscope.compare(GOOD, BAD).accuracy
    assert within.estimate == compare(gradscope.open(paths[0]), GOOD, BAD).accuracy.estimate
    some = runs.sel(classifier_input=["x_t"], stabilizer=["none"], guidance_scale=[0.5])
    assert set(some.gradscope.signatures().run) == {"a", "b"}


def test_equal_seeds_stay_one_coordinate(paths):
    assert gradscope.open_many({"a": paths[0], "b": paths[0]}).seed.dims == ("sample",)
    assert gradscope.open_many([paths[0]]).sizes["run"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ds: ds.isel(stabilizer=[0]), r"stabilizer is \['none', 'adam'\] in a, \['none'\] in b"),
        (lambda ds: ds.isel(guidance_scale=1), r"guidance_scale is \[0.0, 0.5\] in a, \[0.5\] in b"),
        (lambda ds: ds.isel(sample=slice(8)), "length of sample is 16 in a, 8 in b"),
        (lambda ds: ds.isel(timestep=slice(8)), "length of timestep is 10 in a, 8 in b"),
        (lambda ds: ds.isel(height=slice(4)), "length of height is 8 in a, 4 in b"),
        (lambda ds: ds.assign_coords(timestep=ds.timestep + 1), r"timestep is \[900, 800, 700, 600, ...\] in a"),
        (lambda ds: ds.assign_coords(label=(ds.label + 1) % 4), "label is"),
        (lambda ds: ds.assign_coords(alphas_cumprod=ds.alphas_cumprod * 0.9), "alphas_cumprod is"),
        (lambda ds: ds.assign_attrs(sample_dims=["height"]), "sample_dims is"),
        (lambda ds: ds.assign_attrs(configuration='{"guidance": {"interval": [0, 500]}}'), "guidance.interval is None"),
    ],
)
def test_grids_that_differ_are_refused(change, message):
    ds = evaluated()
    with pytest.raises(GradscopeError, match=f"grids differ: .*{message}"):
        gradscope.open_many({"a": ds, "b": change(ds)})


def test_selections_are_runs(paths):
    part = evaluated().sel(GOOD)
    runs = gradscope.open_many({"a": part, "b": gradscope.open(paths[1]).sel(GOOD)})
    assert [runs.sizes[dim] for dim in runs.attrs["cell_dims"]] == [1, 1, 1, 1, 2]
    np.testing.assert_allclose(2 * runs.gradient_norm.sel(run="a"), runs.gradient_norm.sel(run="b"))


def test_names(paths, tmp_path):
    with pytest.raises(GradscopeError, match="two stores have the name 'first'"):
        gradscope.open_many([paths[0], paths[0]])
    with pytest.raises(GradscopeError, match="open datasets need names"):
        gradscope.open_many([evaluated()])
    with pytest.raises(GradscopeError, match="takes a list of stores"):
        gradscope.open_many(str(paths[0]))
    with pytest.raises(GradscopeError, match="no stores"):
        gradscope.open_many([])
    with pytest.raises(GradscopeError, match="already has a dimension 'run'"):
        gradscope.open_many({"x": gradscope.open_many(paths)})
    with pytest.raises(GradscopeError, match="is not a zarr store"):
        gradscope.open_many([tmp_path / "nothing.zarr"])
