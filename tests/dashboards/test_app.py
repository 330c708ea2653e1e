"""The app without a browser: its routes, its first callback, its errors."""

import json
import shutil

import pytest
from dash_client import ask, show, texts

from dashboards import create_app
from dashboards.state import PAGES

NOT_OF_IT = ("guidance", "loop")
"""Pages that the small store has nothing for."""


@pytest.mark.parametrize("page", [name for name in PAGES if name not in NOT_OF_IT])
def test_every_page_is_made_from_its_address(client, page):
    found = show(client, page, cell="9", t="0", sample="2")
    view = found["view"]["data"]
    assert view["page"] == page
    assert view["url"].startswith(f"{page}?store=5f0c&cell=9&t=")
    assert found["page"]["children"]
    assert found["poll"]["disabled"] is True


@pytest.mark.parametrize("page", NOT_OF_IT)
def test_a_page_without_anything_to_show_says_so_and_is_the_overview(client, page):
    found = show(client, page, cell="9")
    view = found["view"]["data"]
    assert view["url"].startswith("overview?store=5f0c&cell=9&")
    assert view["pages"] == [name for name in PAGES if name not in NOT_OF_IT]
    why = {"guidance": "not of classifier-free guidance", "loop": "not recorded by gradscope.watch"}
    assert why[page] in texts(found["notices"]["children"])


def test_a_notice_names_each_replaced_value(client):
    assert "cell=99" in json.dumps(show(client, "trajectory", cell="99")["notices"])


def test_a_broken_store_is_shown_beside_the_others_and_opened_once_it_is_repaired(stored, tmp_path):
    broken = tmp_path / "broken.zarr"
    broken.mkdir()
    (broken / "zarr.json").write_text("{not json")
    client = create_app([broken, stored]).server.test_client()
    assert "broken.zarr cannot be opened" in json.dumps(show(client)["page"])
    second = show(client, store="5f0c")
    assert second["view"]["data"]["store"] == "5f0c"
    assert second["view"]["data"]["url"].startswith("overview?store=5f0c&cell=")
    options = ask(client, ["store-select.data"], [("page", "id", "page")], [])["store-select"]["data"]
    assert [option["label"] for option in options] == ["broken.zarr (cannot be opened)", "small.zarr"]
    assert options[1]["value"] == "5f0c"
    shutil.rmtree(broken)
    assert "broken.zarr cannot be opened" in json.dumps(show(client)["page"])
    shutil.copytree(stored, broken)
    assert show(client)["view"]["data"]["url"].startswith("overview?store=")


def test_it_works_below_a_prefix(stored):
    client = create_app([stored], prefix="/deep/").server.test_client()
    assert client.get("/deep/").status_code == 200
    assert client.get("/").status_code == 404
    assert show(client, "run", prefix="/deep/")["view"]["data"]["page"] == "run"


def test_answers_forbid_other_hosts(client):
    answer = client.get("/")
    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    page = answer.get_data(as_text=True)
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "https://" not in page
