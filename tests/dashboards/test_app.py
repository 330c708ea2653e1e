"""The app without a browser: its routes, its first callback, its errors."""

import json
import shutil

import pytest
from dash_client import ask

from dashboards import create_app
from dashboards.state import PAGES


@pytest.fixture(scope="module")
def client(stored):
    return create_app([stored]).server.test_client()


def show(client, path="", prefix="/", **query):
    """What the address gives: the page's children, notices and view."""
    outputs = [
        ("page", "children"), ("notices", "children"), ("view", "data"), ("store-select", "value"),
        ("live", "children"), ("poll", "disabled"),
    ]  # fmt: skip
    body = {
        "output": "..{}..".format("...".join(f"{i}.{p}" for i, p in outputs)),
        "outputs": [{"id": i, "property": p} for i, p in outputs],
        "inputs": [{"id": "address", "property": "data", "value": {"path": path, "query": query}}],
        "changedPropIds": ["address.data"],
        "state": [],
    }
    answer = client.post(f"{prefix}_dash-update-component", json=body)
    assert answer.status_code == 200, answer.data
    return answer.get_json()["response"]


@pytest.mark.parametrize("page", PAGES)
def test_every_page_is_made_from_its_address(client, page):
    found = show(client, page, cell="9", t="0", sample="2")
    view = found["view"]["data"]
    assert view["page"] == page
    assert view["url"].startswith(f"{page}?store=5f0c&cell=9&t=")
    assert found["page"]["children"]
    assert found["poll"]["disabled"] is True


def test_notices_tell_what_was_clamped(client):
    found = show(client, "trajectory", cell="99")
    assert "cell=99" in json.dumps(found["notices"])


def test_a_store_that_cannot_be_opened_is_an_error_beside_the_others(stored, tmp_path):
    broken = tmp_path / "broken.zarr"
    broken.mkdir()
    (broken / "zarr.json").write_text("{not json")
    client = create_app([broken, stored]).server.test_client()
    first = show(client)
    assert "broken.zarr cannot be opened" in json.dumps(first["page"])
    second = show(client, store="5f0c")
    assert second["view"]["data"]["store"] == "5f0c"
    assert second["view"]["data"]["url"].startswith("overview?store=5f0c&cell=")
    choices = ask(client, ["store-select.data"], [("page", "id", "page")], [])["store-select"]["data"]
    assert [choice["label"] for choice in choices] == ["broken.zarr (cannot be opened)", "small.zarr"]
    assert choices[1]["value"] == "5f0c"


def test_a_store_is_looked_at_again_once_it_is_there(stored, tmp_path):
    late = tmp_path / "late.zarr"
    client = create_app([late]).server.test_client()
    assert "late.zarr cannot be opened" in json.dumps(show(client)["page"])
    shutil.copytree(stored, late)
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


def test_nothing_but_the_named_stores_is_read(client, stored):
    for path in ("/frames/../../etc/passwd", "/assets/../app.py", "/numbers/..%2f..%2fx.csv", "/thumbnails/x/0.png"):
        answer = client.get(path)
        # The app's page is the answer to any address that it does not know.
        assert answer.status_code == 404 or answer.data.startswith(b'<!DOCTYPE html>\n<html lang="en">')
