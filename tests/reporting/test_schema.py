"""`gradscope report --json`: the documented schema, its keys, and a planted fault that a script finds by them."""

import json
import re

import jsonschema
import numpy as np
import pytest
import small_store
import xarray as xr
from documentation import ROOT
from small_store import BAD, evaluated, of_points, recorded, save
from typer.testing import CliRunner

import gradscope
from gradscope.analysis.synthetic import SIGNATURE, trajectories
from gradscope.cli.commands import app
from gradscope.reporting.report import report, to_json

SCHEMA = json.loads((ROOT / "docs" / "reference" / "report.schema.json").read_text(encoding="utf-8"))
PAGE = (ROOT / "docs" / "reference" / "report.md").read_text(encoding="utf-8")
KEYS = {
    "": "version written remarks findings tests untested cells floors comparisons provenance",
    "written": "share samples complete text",
    "finding": "signature severity cell classifier classifier_input stabilizer guidance_scale first_timestep "
    "last_timestep affected samples effect low high threshold evidence advice target_class further",
}
"""Keys on which programs rely. One that goes away or changes its meaning raises `version`."""


def content(ds: xr.Dataset) -> dict:
    return json.loads(to_json(report(ds)))


def validate(found: dict) -> None:
    jsonschema.Draft202012Validator(SCHEMA).validate(found)


@pytest.fixture(scope="module")
def small():
    return evaluated().isel(classifier_input=[0], stabilizer=[0])


@pytest.fixture(scope="module")
def found(small):
    return content(small)


def test_the_schema_is_one():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_keys_are_those_that_programs_rely_on(found):
    assert found["version"] == SCHEMA["properties"]["version"]["const"] == 1
    assert set(found) == set(SCHEMA["required"]) == set(SCHEMA["properties"]) == set(KEYS[""].split())
    written, finding = SCHEMA["properties"]["written"], SCHEMA["$defs"]["finding"]
    for part, schema, key in ((found["written"], written, "written"), (found["findings"][0], finding, "finding")):
        assert set(part) == set(schema["required"]) == set(schema["properties"]) == set(KEYS[key].split())
    assert found["findings"][0]["cell"] == BAD


@pytest.mark.parametrize(
    "make",
    [
        lambda: evaluated().isel(classifier_input=[0]),
        lambda: recorded().isel(classifier_input=[0], stabilizer=[0]),
        lambda: of_points(evaluated()).isel(stabilizer=[0]),
        lambda: evaluated().sel(BAD).isel(sample=0),
        lambda: trajectories("non_finite", samples=16),
        lambda: trajectories("one_exploding", samples=16),
        lambda: trajectories("classes_gone"),
        lambda: gradscope.open_many({"a": evaluated().sel(BAD), "b": evaluated().sel(BAD)}),
        lambda: trajectories("constant", samples=8)[["written", "gradient_cosine"]].assign_attrs(status="recording"),
    ],
)
def test_reports_of_all_kinds_of_stores_are_valid(make):
    validate(content(make()))


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.pop("tests"),
        lambda c: c.update(further=1),
        lambda c: c["findings"][0].pop("cell"),
        lambda c: c["findings"][0].update(severity="fatal"),
        lambda c: c["findings"][0].update(first_timestep="800"),
        lambda c: c["cells"][0].update(judge=1.5),
        lambda c: c["cells"][0].pop("samples"),
    ],
)
def test_what_differs_from_the_schema_is_found(found, change):
    changed = json.loads(json.dumps(found))
    change(changed)
    with pytest.raises(jsonschema.ValidationError):
        validate(changed)


def test_the_page_describes_every_key():
    named = set(re.findall(r"`(\w+)`", PAGE))
    finding, top = SCHEMA["$defs"]["finding"]["properties"], SCHEMA["properties"]
    assert {*finding, *top, *top["written"]["properties"]} <= named


def planted(fault: str, path) -> xr.Dataset:
    """A store of two cells: `healthy`, and `planted` with the fault. What lies in it is not named by it."""
    parts = [trajectories(name, samples=32, timesteps=50, seed=i) for i, name in enumerate(("none", fault))]
    parts = [part.assign_coords(classifier=[name]) for part, name in zip(parts, ("healthy", "planted"), strict=True)]
    ds = xr.concat(parts, "classifier", data_vars="minimal", join="outer", coords="minimal", compat="override")
    save(ds.assign_attrs(small_store.ATTRIBUTES | {"scheduler": json.dumps({"num_train_timesteps": 1000})}), path)
    return ds


def seen_from_outside(fault: str, ds: xr.Dataset) -> tuple[float, float]:
    """The first and the last timestep of the fault, read off the planted gradients by numpy."""
    gradient = ds.gradient.sel(classifier="planted").values.squeeze().reshape(32, 50, -1)
    norm = np.linalg.norm(gradient, axis=2)
    shown = {
        "exploding": (norm > 30 * np.median(norm[:, :25], axis=1, keepdims=True)).mean(axis=0) > 0.5,
        "non_finite": ~np.isfinite(gradient).all(axis=(0, 2)),
        "white_noise": np.arange(50) >= 1,  # each gradient is independent of the one before
        "vanishing": (norm < 1e-9).all(axis=0),
    }[fault]
    at = ds.timestep.values[shown]
    return float(at.max()), float(at.min())


@pytest.mark.parametrize("fault", ["exploding", "non_finite", "white_noise", "vanishing"])
def test_a_script_names_a_planted_fault_its_cell_and_its_timesteps(fault, tmp_path):
    """docs/how-to/scripts.md, in three calls of the five."""
    ds = planted(fault, tmp_path / "planted.zarr")
    printed = CliRunner().invoke(app, ["report", str(tmp_path / "planted.zarr"), "--json"])  # 1
    assert printed.exit_code == 0
    found = json.loads(printed.stdout)
    validate(found)
    first = found["findings"][0]
    assert first["signature"] == SIGNATURE.get(fault, fault)
    assert first["cell"]["classifier"] == "planted"
    assert not [f for f in found["findings"] if f["cell"]["classifier"] == "healthy" and f["severity"] == "alarm"]
    begin, end = seen_from_outside(fault, ds)
    assert begin - 120 <= first["first_timestep"] <= begin + 60
    assert end <= first["last_timestep"] <= end + 60
    opened = gradscope.open(tmp_path / "planted.zarr")  # 2
    span = opened.sel(first["cell"]).sel(timestep=slice(first["first_timestep"], first["last_timestep"]))  # 3
    assert span.sizes["timestep"] > 1
    assert span.sizes["sample"] == 32
