"""The token in a real browser: where it goes, and which links work."""

import threading

import chromium
import pytest
from playwright.sync_api import expect

from dashboards.app import app_of
from dashboards.data.library import Library
from dashboards.security import connections

TOKEN = "correct-horse_1"


@pytest.fixture(scope="module")
def guarded(synthetic):
    """A dashboard with a token, and a page of another site that links to it."""
    app = app_of(Library([synthetic]), "/p/", None, TOKEN)
    server, port = connections.listen(app.server, "127.0.0.1", 0)

    def elsewhere(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/html")])
        ways = {"link": "overview", "token": f"overview?token={TOKEN}"}
        links = [f'<a id="{id}" href="http://127.0.0.1:{port}/p/{href}">see</a>' for id, href in ways.items()]
        return ["".join(links).encode()]

    other, other_port = connections.listen(elsewhere, "127.0.0.1", 0)
    for each in (server, other):
        threading.Thread(target=each.run, daemon=True).start()
    yield f"http://127.0.0.1:{port}/p/", f"http://localhost:{other_port}/"
    for each in (server, other):
        each.task_dispatcher.shutdown()
        each.close()


@pytest.fixture
def page(browser):
    with browser.new_context(viewport=chromium.SIZE) as context:
        yield context.new_page()


def shown(page):
    expect(page.locator(".nav a[aria-current=page]")).to_have_text("Overview", timeout=20_000)
    return page.url


def test_the_token_leaves_the_address_and_the_history(page, guarded):
    url, _ = guarded
    page.goto(f"{url}overview?token={TOKEN}")
    assert "token" not in shown(page)
    cookies = {each["name"]: each for each in page.context.cookies()}
    (name,) = (name for name in cookies if name != "gradscope_page")
    assert (cookies[name]["httpOnly"], cookies[name]["sameSite"]) == (True, "Strict")
    assert page.evaluate("document.cookie").find(name) == -1
    page.goto(f"{url}overview")
    shown(page)
    for _ in range(page.evaluate("history.length") - 1):
        page.go_back()
        assert "token" not in page.url


def test_a_stranger_sees_one_line(page, guarded):
    answer = page.goto(guarded[0])
    assert answer.status == 401
    assert page.locator("body").inner_text().startswith("this dashboard needs its token: open the address")


@pytest.mark.parametrize("way", ["link", "token"])
def test_a_link_on_another_site_opens_it(page, guarded, way):
    url, elsewhere = guarded
    if way == "link":  # of a colleague who was here before
        page.goto(f"{url}overview?token={TOKEN}")
        shown(page)
    page.goto(elsewhere)
    page.locator(f"#{way}").click()
    assert "token" not in shown(page)


def test_a_link_on_another_site_shows_a_stranger_the_line(page, guarded):
    page.goto(guarded[1])
    page.locator("#link").click()
    expect(page.locator("body")).to_contain_text("this dashboard needs its token", timeout=10_000)
