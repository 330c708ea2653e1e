"""The Run page, compared with the store's files."""

import json
import shlex

import numpy as np
import pytest
import small_store
from plotly.io.json import to_json_plotly
from ruamel.yaml import YAML

from dashboards.data.disk import disk_sizes
from dashboards.data.open_run import OpenRun
from dashboards.pages import run as page
from dashboards.state import default

CONFIGURATION = {
    "denoiser": "zoo:sportballs32/ddpm",
    "judge": None,
    "guidance": {"guidance_scale": [0.0, 0.5], "interval": [0, 1000], "smoothgrad": None},
    "stabilizers": {"none": {}, "adam": {"betas": [0.9, 0.999], "eps": 1e-8, "bias_correction": True}},
    "probes": [{"mine:Probe": {"every": 2}}, "norms"],
    "note": "yes: 'no' # \n two lines",
}


def shown(component) -> str:
    return json.dumps(json.loads(to_json_plotly(component)), ensure_ascii=False)


def test_the_configuration_as_yaml_is_the_one_that_is_stored():
    text = page.configuration({"configuration": json.dumps(CONFIGURATION)})
    assert YAML(typ="safe").load(text) == CONFIGURATION
    assert "  guidance_scale: [0.0, 0.5]\n" in text
    assert "judge: null\n" in text
    assert text.index("denoiser") < text.index("guidance") < text.index("probes")


@pytest.mark.parametrize(("stored", "text"), [({}, "the store has none"), ({"configuration": "{broken"}, "{broken")])
def test_a_configuration_that_is_not_json_is_shown_as_it_is(stored, text):
    assert page.configuration(stored) == text


def test_progress_against_a_loop(opened):
    ds = small_store.recorded()[["log_prob", "image"]]
    rng = np.random.default_rng(0)
    written = np.where(rng.random((*small_store.SHAPE, 16, 10)) < 0.9, 3, 0).astype(np.uint8)
    written[0, 0, 0, 0] = 3
    ds["written"] = (ds["log_prob"].dims, written)
    run = opened(ds.assign_attrs(status="recording"))
    rows = page.progress_rows(run, default(run, "run"))
    for i, (row, at) in enumerate(zip(rows, np.ndindex(small_store.SHAPE), strict=True)):
        counts = [int((written[at][sample] > 0).sum()) for sample in range(16)]
        assert row["finished"] == sum(count == 10 for count in counts)
        assert (row["samples"], row["all"], row["steps"]) == (16, 160, sum(counts))
        assert row["share"] == pytest.approx(sum(counts) / 160)
        assert f"&cell={i}&" in row["href"].replace("?", "&")
    assert rows[0]["share"] == 1


def test_sizes_are_those_of_the_files(run, stored):
    rows = {row["name"]: row for row in page.array_rows(run)}
    for name in ("gradient", "written", "label", "judge_prediction"):
        assert rows[name]["bytes"] == sum(file.stat().st_size for file in (stored / name).rglob("*") if file.is_file())
    assert [row["bytes"] for row in rows.values()] == sorted((row["bytes"] for row in rows.values()), reverse=True)
    assert rows["gradient"]["dims"] == "sample, timestep, channel, height, width"
    assert rows["gradient"]["dtype"] == str(run.ds["gradient"].dtype)


def test_an_array_without_files_has_no_bytes(tmp_path):
    assert disk_sizes(tmp_path, ["gone"]) == {"gone": 0}


def test_commands_quote_the_path(tmp_path):
    path = tmp_path / "my runs; rm x" / "a b.zarr"
    path.parent.mkdir()
    run = OpenRun(small_store.save(small_store.recorded()[["log_prob", "written"]], path))
    lines = [shlex.split(line) for line in page.commands(run).splitlines()]
    assert ["gradscope", "report", str(path), "--html", "a b.html"] in lines
    assert all(line[:1] == ["gradscope"] and line[2] == str(path) for line in lines)


def test_the_page_states_the_origin_of_the_run(run):
    found = shown(page.layout(run, default(run, "run")))
    for part in ("5f0c", "abcd", "gradscope record --config both.yaml", "gradscope 0.1.0", "complete", "On disk: "):
        assert part in found


def test_attributes_are_shown_as_texts(opened):
    ds = small_store.recorded()[["log_prob", "written", "image"]]
    ds.attrs |= {"command": "<script>alert(1)</script>", "versions": {"<b>x</b>": "1"}, "device": "<i>odd</i>"}
    run = opened(ds)
    found = json.loads(to_json_plotly(page.layout(run, default(run, "run"))))
    assert "dangerously" not in json.dumps(found)
    assert "<script>alert(1)</script>" in json.dumps(found)


def test_of_a_watched_loop_samples_with_a_gradient_count_and_empty_attributes_are_left_out(opened):
    ds = small_store.recorded()[["log_prob", "written", "image"]]
    ds["written"][0, 0, 0, 0, :5, 3] = 0
    ds["written"][0, 0, 0, 0, 9] = 0
    ds.attrs |= {"watched": 1, "command": "", "weights_sha256": "{}"}
    del ds.attrs["configuration"]
    run = opened(ds)
    assert [row["finished"] for row in page.progress_rows(run, default(run, "run"))[:2]] == [15, 16]
    found = shown(page.layout(run, default(run, "run")))
    assert "A watched loop has none" in found
    assert "weights_sha256" not in found
    assert '"command"' not in found
