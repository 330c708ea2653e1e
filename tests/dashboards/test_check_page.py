"""The Check page against the file that it shows, which may be a stranger's."""

import json

import pytest
from dash_client import ask, parts, show, texts

from dashboards.app import app_of
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_check import OpenCheck
from dashboards.pages.check import page
from dashboards.pages.check.rows import first, rows
from gradscope.reporting.check_file import CheckFile

SCRIPT = "</script><script>window.pwned=1</script>"
ANSWERS = [
    {"guide": "robust", "classifier_input": "x_t", "timestep": 999, "verdict": "right", "kind": "right",
     "confidence": "high", "evidence": {"cosine": 1.0, "deviation": 1e-7, "allowed": 1e-6}, "needs": {"order": "x"}},
    {"guide": SCRIPT, "classifier_input": "x0", "timestep": 2.5, "verdict": "wrong_timestep", "kind": "fault",
     "cause": "0: fixed", "meaning": "c is elsewhere", "advice": f"Pass t {SCRIPT}", "confidence": "medium",
     "evidence": {"cosine": 0.5, "deviation": "inf", SCRIPT: 3, "samples": 2}, "others": [["stale_x", "so"]],
     "remarks": [SCRIPT, "b"], "needs": {"order": "needs stabilizer="}},
    {"guide": "robust", "verdict": "undecided", "kind": "undecided", "confidence": "none", "timestep": 1},
]  # fmt: skip


def written(path, answers=ANSWERS, **changes):
    document = {"kind": "gradscope check", "version": 1, "gradscope": "9.9", "created": "2026-01-02T03:04:05+00:00",
                "source": SCRIPT, "right": False, "answers": answers}  # fmt: skip
    path.write_text(json.dumps(document | changes), encoding="utf-8")
    return path


@pytest.fixture
def client(tmp_path, stored):
    app = app_of(Library([written(tmp_path / "a.json"), stored]), "/")
    client = app.server.test_client()
    client.get("/_dash-dependencies")
    return client


def test_rows_are_the_answers_of_the_file(tmp_path):
    found = OpenCheck(written(tmp_path / "a.json"), "k").found
    made = rows(found)
    assert [row["verdict"] for row in made] == ["✓ right", "▲ wrong_timestep", "● undecided"]
    assert [row["timestep"] for row in made] == [999, 2.5, 1]
    assert [row["at"] for row in made] == ["999", "2.5", "1"]
    assert [row["cosine"] for row in made] == [1.0, 0.5, None]
    assert [row["deviation"] for row in made] == [1e-7, None, None]
    assert [row["advice"] for row in made] == ["", ANSWERS[1]["advice"], ""]
    assert made[1]["name"] == f"{SCRIPT}, x0, timestep 2.5: wrong_timestep (0: fixed)"
    assert made[1]["evidence"] == f"cosine: 0.5\ndeviation: inf\n{SCRIPT}: 3\nsamples: 2"
    assert (made[1]["others"], made[1]["remarks"]) == ("stale_x (so)", f"{SCRIPT}\nb")
    assert (made[0]["needs"], made[1]["needs"]) == ("", "order: needs stabilizer=")
    assert first(made) == made[1]
    assert first(made[:1]) == made[0]


@pytest.mark.parametrize(
    ("answers", "right", "said"),
    [
        (ANSWERS, False, "2 of 3 gradients are not right"),
        (ANSWERS[:1] * 2, True, "2 of 2 gradients are right"),
        (ANSWERS[:2], False, "1 of 2 gradients is not right"),
        (ANSWERS[:1], True, "1 of 1 gradients is right"),
        ([ANSWERS[1] | {"timestep": None}, ANSWERS[0]], False, "The gradient is not right: wrong_timestep"),
        ([ANSWERS[0] | {"timestep": None}, ANSWERS[1]], True, "The gradient is right: right"),
    ],
)
def test_the_headline_counts(answers, right, said):
    assert page.headline(CheckFile(source="a", right=right, answers=answers)) == said


def test_columns_without_any_value_are_left_out(tmp_path):
    code = [{"verdict": "right", "kind": "right", "confidence": "high"}]
    for answers, there in ((ANSWERS, True), (code, False)):
        run = OpenCheck(written(tmp_path / "a.json", answers, right=answers is code), "k")
        (grid,) = [part for part in parts(page.layout(run, {})) if "rowData" in part]
        fields = [column["field"] for column in grid["columnDefs"]]
        for name in ("guide", "classifier_input", "timestep", "cause"):
            assert (name in fields) == there
        assert ("advice" in fields) == there
        assert {"verdict", "confidence"} <= set(fields)


def test_texts_of_the_file_are_children_and_nothing_else_is_shown_of_it(client):
    found = show(client, "anything")
    assert found["view"]["data"] == {
        "store": found["view"]["data"]["store"], "page": "check", "pages": ["check"],
        "url": f"check?store={found['view']['data']['store']}",
    }  # fmt: skip
    made = parts(found["page"]["children"])
    assert SCRIPT in texts(found["page"]["children"])
    assert not [key for part in made for key in part if "dangerous" in key.lower()]
    key = found["view"]["data"]["store"]
    for address in (f"numbers/{key}.csv?call=x", f"frames/{key}/0/0.png?cells=1", f"thumbnails/{key}/0.png?samples=0"):
        answer = client.get(f"/{address}")
        assert (answer.status_code, answer.mimetype) == (404, "text/plain")


def test_a_new_file_is_read_at_the_next_visit_and_a_broken_one_is_not(tmp_path):
    path = written(tmp_path / "a.json")
    run = OpenCheck(path, "k")
    assert not run.refresh()
    written(path, ANSWERS[:1], right=True)
    assert run.refresh()
    assert len(run.found.answers) == 1
    path.write_text("{")
    assert not run.refresh()
    assert len(run.found.answers) == 1
    path.unlink()
    assert not run.refresh()


@pytest.mark.parametrize("content", [b"{", b"[" * 10**6, b'{"kind": 1}', b"\x00" * 10])
def test_a_file_of_another_form_is_broken_and_the_others_stay(tmp_path, stored, content):
    (tmp_path / "bad.json").write_bytes(content)
    library = Library([tmp_path / "bad.json", stored])
    assert isinstance(library.run(None), BrokenRun)
    client = app_of(library, "/").server.test_client()
    client.get("/_dash-dependencies")
    assert "bad.json cannot be opened" in json.dumps(show(client)["page"])
    assert show(client, "run", store="5f0c")["view"]["data"]["page"] == "run"
    options = ask(client, ["store-select.data"], [("page", "id", "page")], [])["store-select"]["data"]
    assert [option["label"] for option in options] == ["bad.json (cannot be opened)", "small.zarr"]
