"""The landing page: its tables with numbers counted anew, and where their rows lead."""

import json
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pytest
import small_store
from plotly.io.json import to_json_plotly

from dashboards import create_app
from dashboards.data.library import Library
from dashboards.data.open_run import OpenRun
from dashboards.pages.overview import page as overview
from dashboards.pages.overview.cells_table import cell_badges, cell_columns, cell_rows
from dashboards.pages.overview.findings_table import finding_rows
from dashboards.state import default, parse
from gradscope.store import CELL_DIMS

JUDGED = ["written", "judge_prediction", "image"]
FEW = ["gradient_cosine", "log_prob", "finite_fraction", "image"]


@pytest.fixture(scope="module")
def run(stored):
    return Library([stored]).run(None)


def opened(ds, tmp_path, name="a.zarr") -> OpenRun:
    return Library([small_store.save(ds, tmp_path / name)]).run(None)


def place(run, url):
    """The state that a row leads to; nothing in its URL may be out of range."""
    parts = urlsplit(url)
    library = type("Library", (), {"run": lambda self, key: run})()
    state, notices = parse(parts.path, dict(parse_qsl(parts.query)), library)
    assert notices == []
    return state


def shown(component) -> str:
    return json.dumps(json.loads(to_json_plotly(component)), ensure_ascii=False)


def index(ds, cell):
    return tuple(ds[dim].values.tolist().index(cell[dim]) for dim in CELL_DIMS)


def test_cells_are_counted_anew(run):
    ds = small_store.evaluated()
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


def test_a_cell_leads_to_its_trajectories_under_the_cursor(run):
    timestep = int(run.ds["timestep"][2])
    for i, row in enumerate(cell_rows(run, default(run).to("overview", timestep=timestep, sample=7), {})):
        state = place(run, row["href"])
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


def test_an_unstable_cell_leads_to_the_sample_that_turns_the_most(run):
    ds = small_store.evaluated()
    unstable = [(f, r) for f, r in zip(run.findings(), finding_rows(run, run.findings()), strict=True)
                if f.signature == "unstable"]  # fmt: skip
    assert unstable
    for finding, row in unstable:
        cosine = ds["gradient_lag_cosine"].sel(finding.cell)
        within = [t for t in ds["timestep"].values if finding.last_timestep <= t <= finding.first_timestep]
        means = [float(cosine.sel(sample=i, timestep=within).mean()) for i in range(small_store.TENSORS)]
        state = place(run, row["href"])
        assert state.sample == int(np.argmin(means))
        assert state.timestep == finding.first_timestep
        assert dict(run.cells[state.cell]) == dict(finding.cell)
        assert state.variables[0] == "gradient_lag_cosine"
        assert row["position"] == f"sample {state.sample} at t = {state.timestep}"


def partly(cells=0, steps=0, status="complete"):
    """With so many cells written, and so many steps of the next; without tensors."""
    ds = small_store.recorded()[FEW]
    written = np.zeros((16, 16, 10), dtype=np.uint8)
    written[:cells] = 3
    written[cells, :, :steps] = 3
    dims = ds["log_prob"].dims
    ds["written"] = (dims, written.reshape(ds["log_prob"].shape))
    return ds.assign_attrs(status=status)


def test_the_headline_says_what_is_found_and_how_much_is_there(run, tmp_path):
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
    half = opened(partly(8), tmp_path)
    assert overview.headline_text(half, []) == "no finding in 16 cells, with 50 % written"
    assert overview.headline_text(opened(partly(), tmp_path, "none.zarr"), []) == "Nothing is recorded yet"


def test_findings_are_looked_for_again_when_a_cell_is_complete(tmp_path, hold):
    stages = [(0, 3), (0, 8), (1, 0), (1, 5)]
    paths = [small_store.save(partly(*stage, "recording"), tmp_path / f"{i}.zarr") for i, stage in enumerate(stages)]
    runs = [Library([hold(path)]).run(None) for path in paths]
    marks = [overview.findings_version(run) for run in runs]
    assert marks[0] == marks[1] != marks[2] == marks[3]
    done = [opened(partly(*stage), tmp_path, f"done{i}.zarr") for i, stage in enumerate(stages[:2])]
    assert overview.findings_version(done[0]) != overview.findings_version(done[1])


STORES = {
    "no judge": (small_store.recorded, "effect"),
    "nothing written": (partly, "mean cosine"),
    "partly written": (lambda: partly(5, 4, "recording"), "mean cosine"),
    "no finite_fraction": (lambda: small_store.evaluated()[FEW[:1] + JUDGED], "judge, by class"),
    "tensors alone": (lambda: small_store.recorded()[["gradient", "written", "image"]], "no diagnostic along t"),
}  # fmt: skip


@pytest.mark.parametrize("name", STORES)
def test_the_page_of_any_store_can_be_shown(name, tmp_path):
    make, text = STORES[name]
    run = opened(make(), tmp_path)
    page = shown(overview.layout(run, default(run)))
    assert text in page
    assert "16 cells, 16 samples and 10 timesteps in each" in page
    assert len(cell_rows(run, default(run), {})) == 16
    finding_rows(run, run.findings())


def test_what_is_not_known_of_a_cell_is_left_open(tmp_path):
    rows = cell_rows(run := opened(partly(1), tmp_path), default(run), {})
    assert rows[0]["samples"] == 16
    assert rows[0]["gradient_cosine"] is not None
    assert rows[1]["samples"] == 0
    assert rows[1]["gradient_cosine"] is None
    assert "judge" not in rows[0]


def ask(client, outputs, inputs, states):
    """What a callback answers."""
    body = {
        "output": "..{}..".format("...".join(f"{i}.{p}" for i, p in outputs)),
        "outputs": [{"id": i, "property": p} for i, p in outputs],
        "inputs": [{"id": i, "property": p, "value": v} for i, p, v in inputs],
        "state": [{"id": i, "property": p, "value": v} for i, p, v in states],
        "changedPropIds": [f"{i}.{p}" for i, p, _ in inputs[:1]],
    }
    return client.post("/_dash-update-component", json=body)


def test_findings_follow_by_a_callback_once(stored, run):
    client = create_app([stored]).server.test_client()
    outputs = [
        ("headline", "children"), ("findings-table", "rowData"), ("findings-table-frame", "style"),
        ("finding-row", "data"), ("findings-body", "style"), ("findings-wait", "visible"), ("untested", "children"),
        ("overview-found", "data"),
    ]  # fmt: skip
    view = {"store": run.key, "page": "overview", "url": default(run).url()}
    states = [("view", "data", view), ("overview-found", "data", None)]
    first = ask(client, outputs, [("version", "data", None)], states)
    found = first.get_json()["response"]
    assert found["findings-table"]["rowData"] == [dict(row) for row in finding_rows(run, run.findings())]
    assert found["finding-row"]["data"] == found["findings-table"]["rowData"][0]
    assert found["findings-wait"]["visible"] is False
    seen = found["overview-found"]["data"]
    states = [("view", "data", view), ("overview-found", "data", seen)]
    again = ask(client, outputs, [("version", "data", "x")], states)
    assert again.status_code == 204


def test_what_could_not_be_tested_is_told_with_its_reason(run):
    told = shown(overview._untested(run.untested() | {"misaligned": "no reference"}))
    assert "misaligned: " in told
    assert "no reference" in told
    assert overview._untested({}) is None
