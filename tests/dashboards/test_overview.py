"""The Overview page: its tables against numbers counted by loops, and the links of their rows."""

import json

import dash_client
import numpy as np
import pytest
import small_store

from dashboards.data.finding_key import finding_key
from dashboards.data.open_run import OpenRun
from dashboards.data.shown_sample import needed, shown_sample
from dashboards.pages.overview import page as overview
from dashboards.pages.overview.cells_table import cell_badges, cell_columns, cell_rows
from dashboards.pages.overview.findings_table import finding_rows
from dashboards.state import default
from dashboards.widgets.export import Call
from gradscope.store import CELL_DIMS

JUDGED = ["written", "judge_prediction", "image"]
FEW = ["gradient_cosine", "log_prob", "finite_fraction", "image"]


def index(ds, cell):
    return tuple(ds[dim].values.tolist().index(cell[dim]) for dim in CELL_DIMS)


def test_cells_against_a_loop(run, evaluated):
    ds = evaluated
    rows = cell_rows(run, default(run), {"3": "▲ unstable"})
    assert [row["id"] for row in rows] == [str(i) for i in range(16)]
    for row, cell in zip(rows, run.cells, strict=True):
        at = index(ds, cell)
        for who in ("own", "judge"):
            expected = small_store.accuracy(ds, who, at)
            assert (row[who], row[f"{who}_low"], row[f"{who}_high"]) == pytest.approx(expected)
        judge, label = ds["judge_prediction"].values[at], ds["label"].values
        shares = [np.mean([judge[i] == k for i in range(16) if label[i] == k and judge[i] >= 0]) for k in range(4)]
        assert row["by_class"].split() == [f"{share:.2f}" for share in shares]
        cosine = ds["gradient_cosine"].values[at]
        assert row["gradient_cosine"] == pytest.approx(np.mean([np.nanmean(one) for one in cosine]))
        assert row["samples"] == 16
        assert row["findings"] == ("▲ unstable" if row["id"] == "3" else "")
        assert all(row[column["field"]] is not None for column in cell_columns(run.ds))


@pytest.mark.parametrize("label", [1, 2])
def test_rows_of_one_class_count_its_samples(run, evaluated, label):
    mine = np.flatnonzero(evaluated["label"].values == label)
    for row, cell in zip(cell_rows(run, default(run), {}, label), run.cells, strict=True):
        at = index(evaluated, cell)
        judge = evaluated["judge_prediction"].values[at][mine]
        seen = judge[judge >= 0]
        assert row["samples"] == len(mine) == 4
        assert row["judge"] == pytest.approx(np.mean(seen == label))
        cosine = evaluated["gradient_cosine"].values[at][mine]
        assert row["gradient_cosine"] == pytest.approx(np.mean([np.nanmean(one) for one in cosine]))
        assert f"label={label}" in row["href"]


def test_unguided_cells_with_the_same_numbers_are_one_row(opened):
    ds = small_store.evaluated()
    for name in ds.data_vars:
        if {"stabilizer", "guidance_scale"} <= set(ds[name].dims):
            at = {"stabilizer": 1, "guidance_scale": 0}
            ds[name][at] = ds[name].isel(stabilizer=0, guidance_scale=0)
    rows = cell_rows(run := opened(ds), default(run), {"2": "▲ unstable"})
    assert len(rows) == 4 + 8
    assert [(row["id"], row["cell"], row["cells"]) for row in rows[:3]] == [
        ("0", "robust, x_t, unguided", [0, 2]),
        ("1", "robust, x_t, no stabiliser, s = 0.5", [1]),
        ("3", "robust, x_t, adam, s = 0.5", [3]),
    ]
    assert rows[0]["findings"] == "▲ unstable"
    assert sorted(i for row in rows for i in row["cells"]) == list(range(16))


def heat_map(client, run, name, label, found):
    view = ("view", "data", {"store": run.key, "page": "overview", "url": default(run).url()})
    chosen = [({"type": "control", "key": key}, "value", v) for key, v in (("variables", name), ("label", label))]
    inputs = [*chosen, ("overview-found", "data", found), ("version", "data", None)]
    card = dash_client.ask(client, ["stability-card.children"], inputs, [view])["stability-card"]["children"]
    return next(part["figure"] for part in dash_client.parts(card) if part["type"] == "Graph")


@pytest.mark.slow
def test_the_heat_map_outlines_what_findings_flag_and_shows_one_class(client, run):
    spans = overview._spans(run, run.findings())
    unstable = [f for f in run.findings() if f.signature == "unstable"]
    assert [span["cell"] for span in spans["gradient_lag_cosine"]] == [f.cell for f in unstable]
    assert "log_prob" not in spans or all(span["name"] != "unstable" for span in spans["log_prob"])
    found = {"version": "x", "badges": {}, "spans": spans}
    figure = heat_map(client, run, "gradient_lag_cosine", "all", found)
    assert len(figure["layout"]["shapes"]) == 2 * len(unstable)
    assert "shapes" not in heat_map(client, run, "gradient_lag_cosine", "all", None)["layout"]
    one = heat_map(client, run, "gradient_cosine", "2", found)
    expected = Call("stability", {"name": "gradient_cosine"}, 2).draw(run)
    assert one["data"] == json.loads(expected.to_json())["data"]
    assert one["data"] != heat_map(client, run, "gradient_cosine", "all", found)["data"]


def test_a_row_of_a_cell_opens_its_trajectory_at_the_cursor(run, state_of):
    timestep = int(run.ds["timestep"][2])
    for i, row in enumerate(cell_rows(run, default(run).to("overview", timestep=timestep, sample=7), {})):
        state = state_of(row["href"])
        assert (state.page, state.cell, state.timestep, state.sample) == ("trajectory", i, timestep, 7)
        assert i in state.cells


def test_badges_of_a_cell_are_its_findings(run):
    found = cell_badges(run, run.findings())
    for i, cell in enumerate(run.cells):
        expected = [f.signature for f in run.findings() if dict(f.cell) == dict(cell)]
        assert [text.split()[1] for text in found.get(str(i), "").split(", ") if text] == expected
    assert any("unstable" in text for text in found.values())


def test_findings_keep_their_order_and_numbers(run):
    findings = run.findings()
    rows = finding_rows(run, findings)
    assert len(rows) == len(findings) > 2
    for row, finding in zip(rows, findings, strict=True):
        assert row["severity"].split()[1] == finding.severity
        for name in ("signature", *CELL_DIMS, "first_timestep", "affected", "samples", "effect", "threshold"):
            assert row[name] == getattr(finding, name)
        assert (row["effect_low"], row["effect_high"]) == (finding.low, finding.high)
        assert (row["evidence"], row["advice"]) == (finding.evidence, finding.advice)
    assert len({row["id"] for row in rows}) == len(rows)
    json.dumps(rows, allow_nan=False)


def test_a_row_of_a_finding_opens_what_shows_it(run, state_of):
    rows = finding_rows(run, run.findings())
    for finding, row in zip(run.findings(), rows, strict=True):
        shown = shown_sample(needed(run), finding, 3 * 8 * 8)
        state = state_of(row["href"])
        assert (state.page, state.sample, state.timestep) == ("trajectory", shown.sample, shown.timestep)
        assert dict(run.cells[state.cell]) == dict(finding.cell)
        assert state.finding == row["id"] == finding_key(run, finding)
        assert (row["position"], row["why"]) == (shown.place, shown.why)
        if finding.signature == "unstable":
            assert state.variables[0] == "gradient_lag_cosine"


def partly(cells=0, steps=0, status="complete"):
    """A store with some cells written, and some steps of the next one; without tensors."""
    ds = small_store.recorded()[FEW]
    written = np.zeros((16, 16, 10), dtype=np.uint8)
    written[:cells] = 3
    written[cells, :, :steps] = 3
    dims = ds["log_prob"].dims
    ds["written"] = (dims, written.reshape(ds["log_prob"].shape))
    return ds.assign_attrs(status=status)


@pytest.mark.slow
def test_few_samples_do_not_rule_faults_out(opened):
    for count, few in ((4, True), (7, True), (8, False)):
        ds = small_store.evaluated().isel(sample=slice(count))
        text = overview.headline_text(opened(ds, f"{count}.zarr"), [])
        wanted = f"no finding in 16 cells; N = {count}: too few samples to rule faults out"
        assert text == (wanted if few else "no finding in 16 cells")


def test_the_headline_counts_findings_and_the_written_share(run, opened):
    found = run.findings()
    cells = len({tuple(f.cell.values()) for f in found})
    alarms, warnings, remarks = (sum(f.severity == s for f in found) for s in ("alarm", "warning", "remark"))
    assert min(alarms, warnings, remarks) > 1
    expected = f"{alarms} alarms, {warnings} warnings and {remarks} remarks in {cells} of 16 cells"
    assert overview.headline_text(run, found) == expected
    few = [next(f for f in found if f.severity == s) for s in ("alarm", "warning")]
    assert overview.headline_text(run, few).startswith("1 alarm and 1 warning in ")
    assert overview.headline_text(run, few[:1]) == "1 alarm in 1 of 16 cells"
    assert overview.headline_text(run, []) == "no finding in 16 cells"
    half = opened(partly(8))
    wanted = "no finding in 8 cells, with 50 % written; of 8 cells no sample is finished"
    assert overview.headline_text(half, []) == wanted
    assert overview.headline_text(opened(partly(), "none.zarr"), []) == "Nothing is recorded yet"


@pytest.mark.slow
def test_findings_are_computed_again_when_a_cell_is_complete(tmp_path, hold, opened):
    stages = [(0, 3), (0, 8), (1, 0), (1, 5)]
    paths = [small_store.save(partly(*stage, "recording"), tmp_path / f"{i}.zarr") for i, stage in enumerate(stages)]
    runs = [OpenRun(hold(path)) for path in paths]
    marks = [overview.findings_version(run) for run in runs]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    done = [opened(partly(*stage), f"done{i}.zarr") for i, stage in enumerate(stages[:2])]
    assert overview.findings_version(done[0]) != overview.findings_version(done[1])


STORES = {
    "no judge": (small_store.recorded, "effect"),
    "nothing written": (partly, "mean cosine"),
    "partly written": (lambda: partly(5, 4, "recording"), "mean cosine"),
    "no finite_fraction": (lambda: small_store.evaluated()[FEW[:1] + JUDGED], "judge, by class"),
    "tensors alone": (lambda: small_store.recorded()[["gradient", "written", "image"]], "no diagnostic along t"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", STORES)
def test_the_page_of_any_store_can_be_shown(name, opened):
    make, text = STORES[name]
    run = opened(make())
    page = json.dumps(dash_client.parts(overview.layout(run, default(run))))
    assert text in page
    assert "16 cells, 16 samples and 10 timesteps in each" in page
    assert len(cell_rows(run, default(run), {})) == 16
    finding_rows(run, run.findings())


def test_unknown_values_of_a_cell_are_left_out(opened):
    rows = cell_rows(run := opened(partly(1)), default(run), {})
    assert rows[0]["samples"] == 16
    assert rows[0]["gradient_cosine"] is not None
    assert rows[1]["samples"] == 0
    assert rows[1]["gradient_cosine"] is None
    assert "judge" not in rows[0]


def test_a_callback_sends_the_findings_once(client, run):
    outputs = [
        "headline.children",
        "findings-table.rowData",
        "findings-table-frame.style",
        "findings-table.selectedRows",
    ]
    outputs += ["findings-body.style", "findings-wait.visible", "untested.children", "overview-found.data"]
    view = ("view", "data", {"store": run.key, "page": "overview", "url": default(run).url()})
    states = [view, ("overview-found", "data", None)]
    found = dash_client.ask(client, outputs, [("version", "data", None)], states)
    assert found["findings-table"]["rowData"] == [dict(row) for row in finding_rows(run, run.findings())]
    assert found["findings-table"]["selectedRows"] == found["findings-table"]["rowData"][:1]
    assert found["findings-wait"]["visible"] is False
    states = [view, ("overview-found", "data", found["overview-found"]["data"])]
    again = dash_client.body(outputs, [("version", "data", "x")], states)
    assert client.post("/_dash-update-component", json=again).status_code == 204


def test_each_untested_signature_has_its_reason(run):
    listed = dash_client.texts(overview._untested(run.untested() | {"misaligned": "no reference"}))
    assert "misaligned: " in listed
    assert "no reference" in listed
    assert overview._untested({}) is None
