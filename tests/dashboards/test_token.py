"""The token, by requests as browsers and strangers send them."""

import hmac
import re

import pytest

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.security import token as tokens

pytestmark = pytest.mark.usefixtures("silent")
TOKEN = "correct-horse_1"
PAGES = (
    "/p/",
    "/p/trajectory?t=4",
    "/p/_dash-layout",
    "/p/assets/style.css",
    "/p/_dash-dependencies",
    "/p/frames/x/0/0.png",
)


@pytest.fixture(scope="module")
def server(stored):
    return app_of(Library([stored]), "/p/", None, TOKEN).server


@pytest.fixture
def stranger(server):
    return server.test_client()


@pytest.fixture
def visitor(server):
    """A browser that opened the printed address."""
    client = server.test_client()
    assert client.get(f"/p/?token={TOKEN}").status_code == 200
    return client


def target(answer):
    """Where a page of the token leads."""
    return re.search(r'http-equiv="refresh" content="0; url=([^"]*)"', answer.text)[1].replace("&amp;", "&")


@pytest.mark.parametrize("path", PAGES)
def test_a_stranger_gets_one_line(stranger, visitor, path):
    answer = stranger.get(path)
    assert (answer.status_code, answer.mimetype, answer.text.count("\n")) == (401, "text/plain", 1)
    assert "?token=" in answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    assert visitor.get(path).status_code == (404 if "frames" in path else 200)


def test_callbacks_need_the_cookie(stranger, visitor):
    body = {
        "output": "store-select.data",
        "outputs": {"id": "store-select", "property": "data"},
        "inputs": [{"id": "page", "property": "id", "value": "page"}],
        "changedPropIds": [],
    }
    assert stranger.post("/p/_dash-update-component", json=body).status_code == 401
    assert stranger.post(f"/p/_dash-update-component?token={TOKEN}", json=body).status_code == 401
    assert visitor.post("/p/_dash-update-component", json=body).status_code == 200


def test_the_token_leaves_the_address_and_a_strict_cookie_stays(stranger):
    answer = stranger.get(f"/p/trajectory?store=5f0c&token={TOKEN}&cells=3,4&cells=%22%3E")
    assert target(answer) == "/p/trajectory?store=5f0c&cells=3,4&cells=%22%3E"
    assert answer.headers["Cache-Control"] == "no-store"
    cookie = next(each for each in answer.headers.getlist("Set-Cookie") if TOKEN not in each and "HttpOnly" in each)
    assert "SameSite=Strict" in cookie
    assert "Path=/p/" in cookie
    assert TOKEN not in answer.text


@pytest.mark.parametrize("given", ["", "correct-horse_2", "correct-horse_", f"{TOKEN}1", TOKEN.upper(), "é", "%ff%fe"])
def test_another_token_is_refused(stranger, given):
    answer = stranger.get(f"/p/?token={given}")
    assert (answer.status_code, "not the token" in answer.text) == (401, True)
    assert stranger.get("/p/").status_code == 401


def test_the_cookie_is_not_the_token_and_only_its_value_opens(stranger, visitor, server):
    name = f"gradscope_{tokens.sha256(TOKEN.encode()).hexdigest()[:8]}"
    value = visitor.get_cookie(name, path="/p/").value
    assert TOKEN not in value
    for wrong in (TOKEN, "", value[:-1], "0" * 64, "é"):
        other = server.test_client()
        other.set_cookie(name, wrong, path="/p/")
        assert other.get("/p/").status_code == 401


def test_two_dashboards_on_one_host_keep_their_cookies_apart(stored, visitor):
    second = app_of(Library([stored]), "/p/", None, "another-token").server
    name = second.test_client().get("/p/?token=another-token").headers["Set-Cookie"].partition("=")[0]
    assert visitor.get_cookie(name, path="/p/") is None


def test_comparisons_take_constant_time(stranger, monkeypatch):
    compared = []
    monkeypatch.setattr(hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    assert stranger.get("/p/?token=some-thing").status_code == 401
    assert (b"some-thing", TOKEN.encode()) in compared
    assert len(compared) == 2  # and the cookie


def test_a_link_on_another_site_is_opened_again_from_here(stranger):
    """Browsers send no strict cookie with it."""
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    answer = stranger.get("/p/samples?cell=1", headers=followed)
    assert (answer.status_code, target(answer)) == (200, "/p/samples?cell=1")
    assert "Set-Cookie" not in answer.headers or "HttpOnly" not in answer.headers["Set-Cookie"]
    again = stranger.get(target(answer), headers=followed | {"Sec-Fetch-Site": "same-origin"})
    assert again.status_code == 401
    picture = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}
    assert stranger.get("/p/samples", headers=picture).status_code == 403


def test_no_shared_cache_may_keep_a_picture(visitor, run):
    answer = visitor.get(f"/p/frames/{run.key}/0/0.png?cells=1")
    assert answer.status_code == 200
    kept = answer.headers["Cache-Control"]
    assert "private" in kept
    assert "immutable" in kept
    assert "public" not in kept


def test_generated_tokens_pass_their_own_check():
    assert all(tokens.check(token) == token for token in (tokens.generated() for _ in range(20)))
