"""A judge or an extractor that is also a guide: found by its weights, and stated wherever its numbers appear."""

import json

import numpy as np
import pytest
import small_store
from dash_client import texts
from rich.console import Console
from small_run import config
from typer.testing import CliRunner

import gradscope
from dashboards import pages
from dashboards.data.library import Library
from dashboards.state import default
from gradscope import cli
from gradscope.analysis.independence import also_guides, warnings
from gradscope.cli.display import tables as console
from gradscope.cli.display.report import report_parts
from gradscope.recording.judge import load_judge
from gradscope.recording.prepare import prepare
from gradscope.recording.run import record_run
from gradscope.reporting.html import to_html
from gradscope.reporting.report import report, to_json

JUDGE = "the judge is not independent: it has the weights of the guide robust"
FEATURES = "their features are those of the guide robust"


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Runs with different judges; the judge of small_run is also its guide."""
    folder, found = tmp_path_factory.mktemp("judged"), {}
    for name, spec in {
        "guide": "small_run:robust",
        "renamed": "small_run:robust_by_another_name",
        "other": "small_run:another_judge",
    }.items():
        path = folder / f"{name}.zarr"
        settings = config(path, judge=spec, guidance={"classifier_input": ["x_t"]}, sampling={"num_inference_steps": 3})
        (folder / f"{name}.json").write_text(settings.model_dump_json())  # JSON is valid YAML
        result = CliRunner(env={"COLUMNS": "200"}).invoke(
            cli.app, ["record", "--config", str(folder / f"{name}.json"), "--device", "cpu"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        found[name] = path, result.output
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("guide", True), ("renamed", True), ("other", False)])
def test_a_recording_prints_the_warning_and_stores_the_names(stored, name, expected):
    path, printed = stored[name]
    assert (JUDGE in " ".join(printed.split())) == expected
    about = json.loads(gradscope.open(path).attrs["evaluation"])
    assert about["also_guides"] == ({"judge": ["robust"]} if expected else {})


def rendered(parts) -> str:
    made = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        made.print(part)
    return " ".join(made.export_text().split())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "expected"), [("renamed", True), ("other", False)])
def test_reports_and_tables_have_the_warning(stored, name, expected):
    ds = gradscope.open(stored[name][0])
    made = report(ds)
    page = to_html(made, ds)
    assert (JUDGE in " ".join(made.remarks)) == expected
    assert (JUDGE in " ".join(json.loads(to_json(made))["remarks"])) == expected
    assert (page.count("it has the weights of the guide robust") >= 2) == expected  # at the top and in a section
    assert (JUDGE in made._repr_html_()) == expected
    assert (rendered(report_parts(made, ds)).count(JUDGE) >= 2) == expected
    assert (JUDGE in rendered(console.evaluation_tables(ds))) == expected
    assert (JUDGE in rendered(console.further_tables(ds))) == expected


@pytest.mark.parametrize(("name", "expected"), [("renamed", True), ("other", False)])
@pytest.mark.parametrize("page", ["overview", "compare", "samples"])
def test_pages_of_the_dashboard_have_the_warning(stored, name, expected, page):
    run = Library([stored[name][0]]).run(None)
    assert (JUDGE[1:] in texts(pages.PAGES[page].layout(run, default(run).to(page)))) == expected


@pytest.mark.slow
def test_an_extractor_that_is_a_guide_is_found(tmp_path):
    run = prepare(config(tmp_path / "run.zarr", sampling={"num_inference_steps": 3}), "cpu")
    record_run(run)
    assert load_judge(run) is not None
    printed = []
    data = {"name": "sportballs", "size": 8}
    given = {"judge": "small_run:another_judge", "data": data, "tell": printed.append}
    ds = gradscope.evaluate(tmp_path / "run.zarr", extractor="small_run:robust_by_another_name", **given)
    assert also_guides(ds) == {"extractor": ["robust"]}
    assert any(FEATURES in text for text in printed)
    assert FEATURES in " ".join(report(ds).remarks)
    distances = rendered(console.evaluation_tables(ds)[1:])
    assert (FEATURES in distances) == ("Samples against real images" in distances)
    ds = gradscope.evaluate(tmp_path / "run.zarr", extractor="small_run:another_judge", **given)
    assert also_guides(ds) == {}


@pytest.mark.parametrize(
    ("judge", "extractor", "found"),
    [
        ("a:b", None, {"judge": ["one"]}),
        ({"timm": "resnet18"}, "a:b", {"judge": ["two"], "extractor": ["one"]}),
        ("c:d", None, {}),
        ("none", None, {}),
    ],
)
def test_in_older_stores_the_names_in_the_configuration_are_compared(judge, extractor, found):
    guides = {"one": "a:b", "two": {"timm": "resnet18"}}
    ds = small_store.evaluated().assign_attrs(
        configuration=json.dumps({"classifiers": guides, "judge": judge}),
        evaluation=json.dumps({"judge": judge, "extractor": extractor}),
    )
    assert also_guides(ds) == found
    assert set(warnings(found)) == set(found)
    assert np.isfinite(ds["guidance_scale"]).all()
