"""The Leaderboard page without a browser."""

import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import small_leaderboard
from dash_client import ask, body, parts, show, texts

from dashboards.app import app_of
from dashboards.data.library import BrokenRun, Library
from dashboards.data.open_leaderboard import OpenLeaderboard
from dashboards.pages.oracle.page import ALL
from gradscope.analysis.oracle import leaderboard_table
from gradscope.plots.leaderboard import SCORES

PARTS = ("frame-{}.hidden", "reason-{}.children", "title-{}.children", "menu-{}.children", "{}.figure")
CURVES = [part.format("oracle-curves") for part in PARTS]


@pytest.fixture(scope="module")
def library(stored, tmp_path_factory) -> Library:
    return Library([small_leaderboard.saved(tmp_path_factory.mktemp("oracle") / "oracle.zarr"), stored])


@pytest.fixture(scope="module")
def board(library) -> OpenLeaderboard:
    found = library.run(None)
    assert isinstance(found, OpenLeaderboard)
    return found


@pytest.fixture(scope="module")
def client(library):
    app = app_of(library, "/")
    client = app.server.test_client()
    client.get("/_dash-dependencies")
    return client


def view(board):
    return (
        "view",
        "data",
        {"store": board.key, "page": "oracle", "url": f"oracle?store={board.key}", "pages": ["oracle"]},
    )


def control(key, value):
    return ({"type": "control", "key": key}, "value", value)


def curves(client, board, rows, score="update_cosine", path="control", mixture=ALL):
    inputs = [control("rows", rows), control("score", score), control("xt", path), control("mixture", mixture)]
    found = ask(client, CURVES, inputs, [view(board)])
    return {key.replace("oracle-curves", ""): value for key, value in found.items()}


def controls(page):
    return {part["id"]["key"]: part for part in parts(page) if isinstance(part.get("id"), dict)}


@pytest.mark.parametrize("path", ["", "oracle", "trajectory"])
def test_a_leaderboard_has_its_page_at_any_path(client, board, path):
    answer = show(client, path, store=board.key)
    assert answer["view"]["data"] == view(board)[2]
    assert answer["notices"]["children"] == []
    said = texts(answer["page"]["children"])
    assert "8 rows on 2 mixtures, with 12 samples, 2 replicates and 5 steps each" in said
    assert answer["poll"]["disabled"] is True


def test_rows_are_those_of_the_table_best_first(client, board):
    (grid,) = [part for part in parts(show(client, "oracle", store=board.key)["page"]["children"]) if "rowData" in part]
    table = leaderboard_table(board.ds)
    assert [row["guide"] for row in grid["rowData"]] == table["guide"].tolist()
    assert [row["update_cosine"] for row in grid["rowData"]] == table["update_cosine"].tolist()
    assert len({row["id"] for row in grid["rowData"]}) == 8
    for row, gain in zip(grid["rowData"], table["gain"], strict=True):  # the stabiliser none is compared with itself
        assert row["gain"] == (None if row["stabilizer"] == "none" else gain)


def test_a_link_restores_controls_and_impossible_values_are_replaced(client, board):
    asked = {"mixture": "points-separated-2", "rows": "7,0", "score": "gradient_bias", "xt": "guided"}
    shown = controls(show(client, "oracle", store=board.key, **asked)["page"]["children"])
    assert shown["mixture"]["value"] == "points-separated-2"
    assert shown["rows"]["value"] == ["7", "0"]
    assert (shown["score"]["value"], shown["xt"]["value"]) == ("gradient_bias", "guided")
    wrong = {"store": board.key, "mixture": "moons", "rows": "99,x,-1", "score": "luck", "xt": "lost"}
    shown = controls(show(client, "oracle", **wrong)["page"]["children"])
    assert shown["mixture"]["value"] == ALL
    assert len(shown["rows"]["value"]) == 2  # the best row of each guide
    assert (shown["score"]["value"], shown["xt"]["value"]) == ("update_cosine", "control")


def test_another_mixture_has_other_rows(client, board):
    found = ask(
        client,
        ["oracle-rows.rowData", "oracle-csv.href"],
        [control("mixture", "vectors-overlapping-4")],
        [view(board)],
        '{"key":"mixture","type":"control"}.value',
    )
    table = leaderboard_table(board.ds, "vectors-overlapping-4")
    assert [row["accuracy"] for row in found["oracle-rows"]["rowData"]] == table["accuracy"].tolist()
    answer = client.get("/" + found["oracle-csv"]["href"])
    lines = answer.get_data(as_text=True).splitlines()
    assert lines[0] == "# run_id: abcdef0123"
    header, *body = [line for line in lines if not line.startswith("#")]
    assert header.split(",") == table.columns.tolist()
    assert len(body) == 8
    assert float(body[0].split(",")[3]) == pytest.approx(table["update_cosine"][0])


@pytest.mark.parametrize("score", SCORES)
def test_every_score_is_drawn_for_the_chosen_rows(client, board, score):
    found = curves(client, board, ["0", "5"], score, "guided", "points-separated-2")
    assert found["frame-"]["hidden"] is False
    assert found["title-"]["children"] == f"{score} along t, points-separated-2"
    named = [trace["name"] for trace in found[""]["figure"]["data"] if trace.get("name")]
    assert named == ["exact, classifier@x_t, none", "clean, classifier@x_t, adam"]


def test_without_rows_the_page_asks_for_one(client, board):
    assert "Choose a row above." in texts(curves(client, board, [])["reason-"]["children"])


@pytest.mark.parametrize(("rows", "score"), [(["8"], "update_cosine"), (["0"], "luck")])
def test_impossible_values_crash_nothing(client, board, rows, score):
    inputs = [control("rows", rows), control("score", score), control("xt", "control"), control("mixture", ALL)]
    answer = client.post("/_dash-update-component", json=body(CURVES, inputs, [view(board)]))
    assert answer.status_code in (200, 204)


def test_the_python_of_a_figure_draws_it(client, board):
    menu = curves(client, board, ["0", "3"])["menu-"]["children"]
    (code,) = [part["data-code"] for part in parts(menu) if "data-code" in part]
    assert "open_leaderboard" in code
    shown = {}
    exec(code.replace("figure.show(config=PLOTLY_CONFIG)", "shown['figure'] = figure"), {"shown": shown})
    assert len(shown["figure"].data) == 4


def test_calls_of_the_other_kind_of_store_are_refused(client, board, library):
    from dashboards.widgets.export import Call

    run = next(each for each in library.runs.values() if each is not board)
    for key, call in ((board.key, Call("accuracy", {})), (run.key, Call("oracle_table", {"mixture": None}))):
        answer = client.get(f"/numbers/{key}.csv?call={call.encode()}")
        assert answer.status_code == 404
        assert "is no store that" in answer.get_data(as_text=True)
    assert client.get(f"/thumbnails/{board.key}/0.png?samples=0-3").status_code == 404


def test_a_recorded_run_beside_it_keeps_its_pages(client, library, board):
    run = next(each for each in library.runs.values() if each is not board)
    answer = show(client, "overview", store=run.key)
    assert answer["view"]["data"]["page"] == "overview"
    assert answer["notices"]["children"] == []


def test_a_leaderboard_that_is_replaced_is_read_again(tmp_path):
    path = small_leaderboard.saved(tmp_path / "a.zarr")
    board = Library([path]).run(None)
    assert board.refresh() is False
    before = float(board.ds.accuracy.mean())
    shutil.rmtree(path)
    assert board.refresh() is False  # not there at this moment
    small_leaderboard.saved(path, seed=1)
    assert board.refresh() is True
    assert float(board.ds.accuracy.mean()) != before


def test_a_damaged_leaderboard_is_shown_as_broken(tmp_path):
    path = small_leaderboard.saved(tmp_path / "a.zarr")
    chunk = next(Path(path, "update_cosine").rglob("c/*/**/*"), None)
    (path / "zarr.json").write_text((path / "zarr.json").read_text().replace('"right"', '"wrong"'))
    found = Library([path]).run(None)
    assert isinstance(found, BrokenRun)
    assert str(path) in found.reason
    assert chunk is None or chunk.exists()


def test_links_of_the_page_name_the_store(client, board):
    page = show(client, "oracle", store=board.key)["page"]["children"]
    (link,) = [part for part in parts(page) if part.get("id") == "oracle-csv"]
    assert urlsplit(link["href"]).path == f"numbers/{board.key}.csv"
