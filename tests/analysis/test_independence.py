"""A judge, or features, that are those of a guide: found by the weights, and said wherever their numbers are shown."""

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
    """Runs by their judge; small_run's own judge is its guide."""
    folder, found = tmp_path_factory.mktemp("judged"), {}
    for name, spec in {
        "guide": "small_run:robust",
        "renamed": "small_run:robust_by_another_name",
        "other": "small_run:another_judge",
    }.items():
        path = folder / f"{name}.zarr"
        settings = config(path, judge=spec, guidance={"classifier_input": ["x_t"]}, sampling={"num_inference_steps": 3})
        (folder / f"{name}.json").write_text(settings.model_dump_json())  # JSON is YAML
        result = CliRunner(env={"COLUMNS": "200"}).invoke(
            cli.app, ["record", "--config", str(folder / f"{name}.json"), "--device", "cpu"], catch_exceptions=False
        )
        assert result.exit_code == 0, result.output
        found[name] = path, result.output
    return found


@pytest.mark.parametrize(("name", "said"), [("guide", True), ("renamed", True), ("other", False)])
def test_a_recording_says_it_and_the_store_keeps_it(stored, name, said):
    path, printed = stored[name]
    assert (JUDGE in " ".join(printed.split())) == said
    about = json.loads(gradscope.open(path).attrs["evaluation"])
    assert about["also_guides"] == ({"judge": ["robust"]} if said else {})


def rendered(parts) -> str:
    made = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    for part in parts:
        made.print(part)
    return " ".join(made.export_text().split())


@pytest.mark.parametrize(("name", "said"), [("renamed", True), ("other", False)])
def test_reports_and_tables_say_it(stored, name, said):
    ds = gradscope.open(stored[name][0])
    made = report(ds)
    page = to_html(made, ds)
    assert (JUDGE in " ".join(made.remarks)) == said
    assert (JUDGE in " ".join(json.loads(to_json(made))["remarks"])) == said
    assert (page.count("it has the weights of the guide robust") >= 2) == said  # above, and beside the table of cells
    assert (JUDGE in made._repr_html_()) == said
    assert (rendered(report_parts(made, ds)).count(JUDGE) >= 2) == said
    assert (JUDGE in rendered(console.evaluation_tables(ds))) == said
    assert (JUDGE in rendered(console.further_tables(ds))) == said


@pytest.mark.parametrize(("name", "said"), [("renamed", True), ("other", False)])
@pytest.mark.parametrize("page", ["overview", "compare", "samples"])
def test_pages_of_the_dashboard_say_it(stored, name, said, page):
    run = Library([stored[name][0]]).run(None)
    assert (JUDGE[1:] in texts(pages.PAGES[page].layout(run, default(run).to(page)))) == said


def test_features_of_a_guide_are_found_too(tmp_path):
    run = prepare(config(tmp_path / "run.zarr", sampling={"num_inference_steps": 3}), "cpu")
    record_run(run)
    assert load_judge(run) is not None
    told = []
    data = {"name": "sportballs", "size": 8}
    given = {"judge": "small_run:another_judge", "data": data, "tell": told.append}
    ds = gradscope.evaluate(tmp_path / "run.zarr", extractor="small_run:robust_by_another_name", **given)
    assert also_guides(ds) == {"extractor": ["robust"]}
    assert any(FEATURES in text for text in told)
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
def test_of_older_stores_the_configuration_says_it(judge, extractor, found):
    guides = {"one": "a:b", "two": {"timm": "resnet18"}}
    ds = small_store.evaluated().assign_attrs(
        configuration=json.dumps({"classifiers": guides, "judge": judge}),
        evaluation=json.dumps({"judge": judge, "extractor": extractor}),
    )
    assert also_guides(ds) == found
    assert set(warnings(found)) == set(found)
    assert np.isfinite(ds["guidance_scale"]).all()
